"""pyarrow: its reader of CSV files."""

import pyarrow.compute
import pyarrow.csv

table = pyarrow.csv.read_csv("table.csv")
print(table.num_rows, pyarrow.compute.sum(table["amount"]).as_py())
