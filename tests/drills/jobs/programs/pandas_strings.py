"""pandas: a column of text is split and counted."""

import pandas

text = pandas.Series([f"{number % 997},{number},end" for number in range(500_000)], dtype=object)
parts = text.str.split(",", expand=True)
print(len(parts), int(parts[1].astype("int64").sum()), parts[0].nunique())
