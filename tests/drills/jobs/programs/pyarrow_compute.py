"""pyarrow: columns are computed, sorted and joined."""

import pyarrow
import pyarrow.compute

numbers = pyarrow.array(range(2_000_000))
table = pyarrow.table({"a": pyarrow.compute.multiply(numbers, 7), "b": numbers})
ordered = table.sort_by([("a", "descending")])
both = pyarrow.concat_tables([table, ordered]).combine_chunks()
print(both.num_rows, pyarrow.compute.sum(both["a"]).as_py())
