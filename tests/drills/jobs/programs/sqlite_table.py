"""sqlite3: a table in memory, with an index."""

import sqlite3

database = sqlite3.connect(":memory:")
database.execute("create table sales (id integer, shop text, amount integer)")
rows = ((number, f"shop number {number % 9973}", number % 101) for number in range(2_000_000))
database.executemany("insert into sales values (?, ?, ?)", rows)
database.execute("create index by_shop on sales (shop, amount)")
query = "select count(*), sum(most) from (select max(amount) most from sales group by shop)"
print(*database.execute(query).fetchone())
