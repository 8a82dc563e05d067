"""json: a file of records is parsed, and what they say added up."""

import json

with open("records.json") as file:
    records = json.load(file)
print(len(records), sum(record["amount"] for record in records))
