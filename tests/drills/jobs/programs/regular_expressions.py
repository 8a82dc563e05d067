"""re: all that matches in a file's text."""

import re

with open("table.csv") as file:
    text = file.read()
found = re.findall(r"(\w+)-(\d+)", text)
print(len(found), sum(int(number) for _, number in found))
