"""duckdb: a table in memory is made, sorted and joined."""

import duckdb

database = duckdb.connect()
columns = "i, i * 7919 % 1000003 k, 'text ' || i t"
database.execute(f"create table t as select {columns} from range(3000000) r(i)")
database.execute("create table o as select * from t order by t desc, k")
query = "select count(*), sum(a.i % 7) from o a join t b on a.k = b.k"
print(*database.execute(query).fetchone())
