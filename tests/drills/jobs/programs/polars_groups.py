"""polars: a table in memory is grouped and sorted."""

import polars

table = polars.DataFrame({"a": range(3_000_000)}).with_columns(
    key=polars.col("a") * 7919 % 100_003, text=polars.format("text {}", "a")
)
groups = table.group_by("key").agg(polars.col("a").sum(), polars.col("text").max())
ordered = table.sort("text", descending=True)
print(len(groups), groups["a"].max(), ordered["a"][0])
