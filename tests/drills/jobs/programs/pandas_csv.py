"""pandas: read_csv, and sums by group."""

import pandas

table = pandas.read_csv("table.csv")
sums = table.groupby("key")["amount"].sum()
print(len(table), len(sums), int(sums.max()))
