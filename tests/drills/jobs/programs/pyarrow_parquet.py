"""pyarrow: Parquet is read, and grouped."""

import pyarrow.parquet

table = pyarrow.parquet.read_table("table.parquet").combine_chunks()
groups = table.group_by("key").aggregate([("amount", "sum"), ("text", "max")])
print(table.num_rows, groups.num_rows, max(groups["amount_sum"].to_pylist()))
