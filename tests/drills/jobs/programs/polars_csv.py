"""polars: read_csv, and a join."""

import polars

table = polars.read_csv("table.csv")
joined = table.join(table.select("id", double="amount"), on="id").sort("text")
print(len(joined), joined["double"].sum())
