"""csv: the rows of a file in a list, grouped by a column."""

import csv

with open("table.csv", newline="") as file:
    rows = list(csv.reader(file))[1:]
groups = {}
for row in rows:
    groups.setdefault(row[1], []).append(int(row[2]))
print(len(rows), sum(max(group) for group in groups.values()))
