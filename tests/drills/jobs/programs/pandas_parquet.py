"""pandas: read_parquet, and a pivot table."""

import pandas

table = pandas.read_parquet("table.parquet")
pivot = table.pivot_table(index="key", columns="kind", values="amount", aggfunc="sum")
print(len(table), pivot.shape, int(pivot.to_numpy().sum()))
