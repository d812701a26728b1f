"""SQL over the lake: reads at any version, pruned; writes through the same path as the API."""

from __future__ import annotations

import datetime as dt
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from deltaduck import (
    DeltaduckError,
    Lake,
    QueryError,
    TableExistsError,
    TableNotFoundError,
    UnsupportedFeatureError,
    VersionNotFoundError,
)


@pytest.fixture(scope="module")
def shop(shared_lake: Lake) -> Lake:
    """`orders` (three versions) and `customers`, both with a column `id`."""
    orders = pa.table({"id": [1, 2, 3, 4], "customer": [10, 10, 20, None], "amount": [1.0, 2.0, 3.0, 4.0]})
    shared_lake.write("orders", orders.slice(0, 2))
    shared_lake.write("orders", orders.slice(2))
    shared_lake.sql("UPDATE orders SET amount = amount * 100 WHERE id = 1")
    shared_lake.write("customers", pa.table({"id": [10, 20, 30], "name": ["Ada", "Bo", "Cy"]}))
    return shared_lake


QUERIES = [
    ("SELECT sum(amount) FROM orders", [(109.0,)]),
    ("FROM orders SELECT count(*)", [(4,)]),
    ("SELECT count(*) FROM Orders AS o WHERE o.ID > 2", [(2,)]),
    ('SELECT count(*) FROM "orders" o', [(4,)]),
    ("SELECT count(*) FROM main.orders", [(4,)]),
    # versions
    ("SELECT sum(amount) FROM orders AT (VERSION => 0)", [(3.0,)]),
    ("SELECT sum(amount) FROM orders AT (VERSION => 1)", [(10.0,)]),
    ("SELECT sum(o.amount) FROM orders AT (VERSION => 3 - 2) AS o", [(10.0,)]),
    ("SELECT sum(amount) FROM orders AT (TIMESTAMP => now())", [(109.0,)]),
    ("SELECT sum(amount) FROM orders AT (TIMESTAMP => TIMESTAMP '9999-01-01')", [(109.0,)]),
    (
        """SELECT now.id, now.amount - before.amount FROM orders now JOIN orders AT (VERSION => 1) before USING (id)
           WHERE now.amount <> before.amount""",
        [(1, 99.0)],
    ),
    ("SELECT count(*) FROM (FROM orders EXCEPT FROM orders AT (VERSION => 0))", [(3,)]),
    # joins of every kind, with a WHERE that must not be pushed below an outer one
    ("SELECT o.id, c.name FROM orders o JOIN customers c ON c.id = o.customer WHERE c.name = 'Bo'", [(3, "Bo")]),
    ("SELECT o.id FROM orders o LEFT JOIN customers c ON c.id = o.customer WHERE c.id IS NULL", [(4,)]),
    ("SELECT sum(c.id) FROM orders o RIGHT JOIN customers c ON c.id = customer AND o.id = 3 WHERE o.id IS NULL", [(40,)]),
    ("SELECT count(*) FROM orders o FULL JOIN customers c ON c.id = o.customer AND o.id = 1", [(6,)]),
    ("SELECT count(o.id) FROM orders o LEFT JOIN customers c ON c.id = o.customer AND c.name = 'nobody'", [(4,)]),
    ("SELECT count(*) FROM orders, customers WHERE orders.customer = customers.id AND orders.id >= 2", [(2,)]),
    ("SELECT count(*) FROM orders o SEMI JOIN customers c ON o.customer = c.id AND c.id = 10", [(2,)]),
    ("SELECT o.id FROM orders o ANTI JOIN customers c ON o.customer = c.id AND c.id = 10 ORDER BY 1", [(3,), (4,)]),
    ("SELECT count(*) FROM customers NATURAL JOIN (SELECT customer AS id FROM orders)", [(3,)]),
    # CTEs, subqueries, set operations
    ("WITH big AS (SELECT * FROM orders WHERE amount > 2) SELECT count(*) FROM big", [(3,)]),
    ("WITH orders AS (SELECT 1 AS x) SELECT * FROM orders", [(1,)]),
    ("WITH o AS (FROM orders), p AS (FROM o WHERE id < 3) SELECT count(*) FROM p JOIN o USING (id)", [(2,)]),
    ("WITH RECURSIVE r AS (SELECT 1 n UNION ALL SELECT n + 1 FROM r, orders WHERE id = n) SELECT max(n) FROM r", [(5,)]),
    ("SELECT name FROM customers WHERE id IN (SELECT customer FROM orders WHERE amount = 3)", [("Bo",)]),
    ("SELECT name FROM customers c WHERE NOT EXISTS (FROM orders o WHERE o.customer = c.id) ORDER BY 1", [("Cy",)]),
    ("SELECT (SELECT max(amount) FROM orders WHERE customer = c.id) FROM customers c ORDER BY c.id", [(100.0,), (3.0,), (None,)]),
    ("SELECT sum(n) FROM (SELECT count(*) AS n FROM orders UNION ALL SELECT count(*) FROM customers)", [(7,)]),
    ("SELECT * FROM (SELECT id FROM orders UNION SELECT id FROM customers) ORDER BY id DESC LIMIT 1", [(30,)]),
    ("SELECT id FROM orders WHERE id = (SELECT max(id) FROM orders AT (VERSION => 0))", [(2,)]),
    ("SELECT x.n FROM orders o, LATERAL (SELECT count(*) n FROM customers c WHERE c.id >= o.customer) x WHERE o.id = 3", [(2,)]),
    # what pruning must see through
    ("SELECT id FROM orders WHERE NOT (amount < 3 OR amount > 50) ORDER BY id", [(3,), (4,)]),
    ("SELECT id FROM orders WHERE CASE WHEN id = 1 THEN true ELSE false END", [(1,)]),
    ("SELECT customer, sum(amount) AS s FROM orders GROUP BY customer HAVING sum(amount) > 100", [(10, 102.0)]),
    ("SELECT id FROM orders WHERE customer IS NULL", [(4,)]),
    ("SELECT id, amount AS id2 FROM orders QUALIFY row_number() OVER (ORDER BY amount DESC) = 1", [(1, 100.0)]),
    ("SELECT amount AS id FROM orders WHERE id = 4", [(4.0,)]),
    ("SELECT id AS k FROM orders WHERE k = 4", [(4,)]),
    ("SELECT 'orders' AS text -- FROM orders", [("orders",)]),
    ("SELECT count(*) FROM orders /* AT (VERSION => 0) */", [(4,)]),
    ("VALUES (1)", [(1,)]),
    ("PIVOT orders ON customer USING sum(amount) GROUP BY id ORDER BY id LIMIT 1", [(1, 100.0, None)]),
    ("SELECT count(*) FROM orders TABLESAMPLE 100 PERCENT", [(4,)]),
    ("SUMMARIZE SELECT id FROM orders", None),
    ("DESCRIBE orders", None),
    ("SHOW TABLES", None),
]  # fmt: skip


@pytest.mark.parametrize(("query", "expected"), QUERIES, ids=range(len(QUERIES)))
def test_reading(shop: Lake, query: str, expected: list[tuple[Any, ...]] | None) -> None:
    found = shop.sql(query).fetchall()
    assert found == expected if expected is not None else found


def test_at_a_timestamp(shop: Lake) -> None:
    for row in shop.table("orders").history():
        at = row["committed"].isoformat()
        for expression in (f"'{at}'", f"TIMESTAMPTZ '{at}'"):
            ((count,),) = shop.sql(f"SELECT sum(amount) FROM orders AT (TIMESTAMP => {expression})").fetchall()
            assert count == {0: 3.0, 1: 10.0, 2: 109.0}[row["version"]]


def test_many_results_may_be_open_at_once(shop: Lake) -> None:
    results = [shop.sql(f"SELECT count(*), {n} FROM orders WHERE id > {n}") for n in range(4)]
    assert shop.sql("SELECT count(*) FROM customers").fetchall() == [(3,)]
    assert [r.fetchall() for r in reversed(results)] == [[(1, 3)], [(2, 2)], [(3, 1)], [(4, 0)]]


def test_what_was_done_is_told_while_a_result_is_read(lake: Lake) -> None:
    """DuckDB 2 runs nothing on a connection whose last result is still being read; what was done is told on another."""
    lake.write("t", "SELECT range AS a FROM range(100000)")
    with lake.sql("FROM t").to_arrow_reader(1000) as reader:
        assert reader.read_next_batch().num_rows == 1000
        assert lake.sql("DELETE FROM t WHERE a >= 10").fetchall() == [(99_990, 1)]
        assert lake.sql("ALTER TABLE t ADD COLUMN b INT").fetchall() == [(True,)]
        lake.sql("BEGIN")
        lake.write("u", [{"a": 1}])
        lake.sql("UPDATE t SET b = 1 WHERE a = 0")
        assert lake.sql("COMMIT").fetchall() == [("t", 3)]
        assert reader.read_all().num_rows == 99_000
    assert lake.sql("SELECT count(*), sum(b) FROM t").fetchall() == [(10, 1)]


def test_what_a_statement_answered_does_not_keep_others_out(lake: Lake, open_lake: Callable[[], Lake]) -> None:
    answers = [lake.sql("CREATE TABLE t (a INT)"), lake.sql("INSERT INTO t VALUES (1)"), lake.sql("VACUUM t DRY RUN")]
    lake.close()
    place = lake.catalog.name.split()[-1]
    if lake.catalog.database == "duckdb":  # which lets one process in
        code = "import sys, duckdb; print(duckdb.connect(sys.argv[1]).sql('SELECT count(*) FROM dl_tables').fetchall())"
        done = subprocess.run([sys.executable, "-c", code, place], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[(1,)]"
    assert open_lake().sql("FROM t").fetchall() == [(1,)]
    assert len(answers) == 3


def test_a_relation_is_lazy_and_composes(shop: Lake) -> None:
    relation = shop.sql("SELECT * FROM orders").filter("id > 1").aggregate("sum(amount)")
    assert relation.fetchall() == [(9.0,)]


def test_explain_shows_the_pruned_scan(shop: Lake) -> None:
    plan = shop.sql("EXPLAIN SELECT * FROM orders WHERE id = 2").fetchall()[0][1]
    assert "PARQUET" in plan.upper()
    assert shop.sql("EXPLAIN ANALYZE SELECT * FROM orders WHERE id = 2").fetchall()


def files_read(lake: Lake, query: str) -> int:
    """How many files DuckDB says it opened."""
    text = lake.sql(f"EXPLAIN ANALYZE {query}").fetchall()[0][1]
    return sum(int(n) for n in re.findall(r"Total Files Read:\s*(\d+)", text))


def test_files_that_cannot_match_are_not_opened(lake: Lake) -> None:
    for n in range(5):
        lake.write("t", pa.table({"n": [n * 10, n * 10 + 9], "u": [1, 2]}))
    assert files_read(lake, "SELECT sum(u) FROM t") == 5
    assert files_read(lake, "SELECT sum(u) FROM t WHERE n BETWEEN 10 AND 19") == 1
    assert files_read(lake, "SELECT sum(u) FROM t WHERE n >= 30") == 2
    assert files_read(lake, "SELECT sum(a.u) FROM t a JOIN t b ON a.u < b.u WHERE a.n = 0 AND b.n = 19") == 2
    assert files_read(lake, "WITH c AS (FROM t) SELECT sum(u) FROM t WHERE n = 1000") == 0


# --- parameters


def test_values_of_parameters_prune(lake: Lake) -> None:
    for n in range(5):
        lake.write("t", pa.table({"n": [n * 10, n * 10 + 9], "u": [1, 2]}))
    scan = "SELECT sum(u) FROM t WHERE n BETWEEN"
    for marked, params in (
        (f"{scan} ? AND ?", [10, 19]),
        (f"{scan} $2 AND $1", (19, 10)),
        (f"{scan} $a AND $B", {"A": 10, "b": 19}),
    ):
        assert lake.sql(marked, params).fetchall() == [(3,)]
        text = lake.sql(f"EXPLAIN ANALYZE {marked}", params).fetchall()[0][1]
        assert re.findall(r"Total Files Read:\s*(\d+)", text) == ["1"]


def test_parameters_of_every_statement(lake: Lake) -> None:
    lake.sql("CREATE TABLE t AS SELECT ?::BIGINT AS id, ? AS name", [1, "it's; DROP TABLE t; --"])
    lake.sql("INSERT INTO t VALUES (?, ?), (?, NULL)", [2, None, -3])
    lake.sql("UPDATE t SET name = $name WHERE id = $id", {"id": 2, "name": "two"})
    with lake.begin() as tx:
        tx.sql(
            "MERGE INTO t USING (SELECT $1 AS id) s ON t.id = s.id WHEN NOT MATCHED THEN INSERT VALUES (s.id, $2)", [4, "four"]
        )
        tx.sql("DELETE FROM t WHERE id < ?", [-2])
        assert tx.sql("SELECT id FROM t WHERE id IN ? ORDER BY id", [(1, 4)]).fetchall() == [(1,), (4,)]
    assert lake.sql("SELECT name FROM t ORDER BY id").fetchall() == [("it's; DROP TABLE t; --",), ("two",), ("four",)]
    assert lake.sql("SELECT count(*) FROM t AT (VERSION => ?)", [0]).fetchall() == [(1,)]
    assert lake.table("t").version() == 3


def test_parameters_that_do_not_fit_change_nothing(lake: Lake, people: pa.Table) -> None:
    lake.write("people", people)
    for statement, params in (
        ("FROM people WHERE id = ?", None),
        ("DELETE FROM people WHERE id = $id", None),
        ("INSERT INTO people (id) VALUES (?)", None),
        ("CREATE TABLE more AS FROM people WHERE id > $1", None),
        ("DELETE FROM people WHERE id = ?", []),
        ("DELETE FROM people", [1]),
        ("DELETE FROM people", "all"),
    ):
        with pytest.raises(QueryError, match="params"):
            lake.sql(statement, params)
    assert lake.table("people").version() == 0


def test_views_and_macros_of_ones_own(lake: Lake, people: pa.Table) -> None:
    lake.write("people", people)
    lake.sql("CREATE VIEW named AS SELECT * FROM people WHERE name IS NOT NULL")
    assert lake.sql("SELECT count(*) FROM named").fetchall() == [(2,)]
    lake.write("people", people)
    assert lake.sql("SELECT count(*) FROM named").fetchall() == [(4,)]  # it follows the table
    lake.sql("CREATE MACRO twice(x) AS x * 2")
    assert lake.sql("SELECT max(twice(id)) FROM people").fetchall() == [(6,)]


def test_temporary_tables_of_ones_own(lake: Lake, people: pa.Table) -> None:
    lake.write("people", people)
    lake.sql("CREATE TEMP TABLE mine AS SELECT id FROM people WHERE id > 1")
    lake.sql("INSERT INTO mine VALUES (100)")
    lake.sql("UPDATE mine SET id = id + 1")
    lake.sql("DELETE FROM mine WHERE id = 101")
    assert lake.sql("SELECT count(*) FROM mine JOIN people USING (id)").fetchall() == [(1,)]
    lake.sql("DROP TABLE mine")
    assert [t["name"] for t in lake.tables()] == ["people"]


def test_local_frames_are_tables(lake: Lake, people: pa.Table) -> None:
    lake.write("people", people)
    arrow = pa.table({"id": [1, 2]})
    polars = pl.DataFrame({"id": [2, 3]})
    lazy = polars.lazy().filter(pl.col("id") == 3)
    pandas = pd.DataFrame({"id": [3]})
    reader = arrow.to_reader()
    for frame, expected in (("arrow", 2), ("polars", 2), ("lazy", 1), ("pandas", 1), ("reader", 2)):
        assert lake.sql(f"SELECT count(*) FROM people JOIN {frame} USING (id)").fetchall() == [(expected,)], frame
    assert [arrow, polars, lazy, pandas, reader]  # found by name only


def test_a_table_that_the_name_does_not_reach_is_in_no_frames_way(lake: Lake) -> None:
    """Unqualified names mean what DuckDB's search path says: not what another schema or database has."""
    lake.con.execute("ATTACH ':memory:' AS elsewhere; CREATE TABLE elsewhere.arrivals (id INTEGER)")
    lake.con.execute("CREATE TEMP TABLE here AS SELECT 9 AS id")
    arrivals = here = pa.table({"id": [1, 2]})
    lake.write("people", arrivals)
    assert lake.sql("SELECT sum(id) FROM arrivals").fetchall() == [(3,)]
    assert lake.sql("SELECT sum(id) FROM here").fetchall() == [(9,)]
    assert lake.sql("INSERT INTO people SELECT * FROM here").fetchall()[0][0] == 1
    lake.sql("MERGE INTO people USING arrivals ON people.id = arrivals.id WHEN MATCHED THEN DELETE")
    assert lake.sql("FROM people").fetchall() == [(9,)]
    with pytest.raises(TableNotFoundError):
        lake.sql("DELETE FROM elsewhere_not")
    assert here is arrivals  # found by name only


def test_a_table_of_the_lake_comes_before_a_local_frame(lake: Lake, people: pa.Table) -> None:
    lake.write("people", people)
    people = people.slice(0, 1)
    assert lake.sql("SELECT count(*) FROM people").fetchall() == [(3,)]


# --- writing


def test_insert(lake: Lake) -> None:
    lake.sql("CREATE TABLE t (id BIGINT NOT NULL, name VARCHAR, day DATE)")
    lake.sql("INSERT INTO t VALUES (1, 'a', '2024-01-01'), (2, NULL, NULL)")
    lake.sql("INSERT INTO t (name, id) VALUES ('c', 3)")
    lake.sql("INSERT INTO t BY NAME SELECT 4 AS id, DATE '2024-01-04' AS day")
    lake.sql("WITH low AS (FROM t WHERE id < 3) INSERT INTO t SELECT id + 10, name, day FROM low")
    rows = lake.sql("SELECT id, name, CAST(day AS VARCHAR) FROM t ORDER BY id").fetchall()
    assert rows == [
        (1, "a", "2024-01-01"), (2, None, None), (3, "c", None), (4, None, "2024-01-04"),
        (11, "a", "2024-01-01"), (12, None, None),
    ]  # fmt: skip
    assert lake.table("t").version() == 4


SCALARS = """
    7 / 2 | 7 // 2 | -7 % 3 | 2 ** 3 | 1e3 | 1_000 | 5 & 3 | xor(5, 3) | 1 << 3 | ~5 | 'a' || NULL | 'it''s' | E'tab\\t'
    $$dollar$$ | 'abc'[2:3] | [1, 2, 3][2] | {'a': 1}.a | MAP {'k': 5}['k'] | struct_pack(a := 1) | list_sort([3, 1])
    list_transform([1, 2], lambda x: x + 1) | [x * 2 FOR x IN [1, 2, 3] IF x > 1] | DATE '2024-01-31' + INTERVAL 1 MONTH
    strftime(DATE '2024-02-03', '%d/%m/%Y') | date_trunc('month', DATE '2024-05-06') | epoch_ms(0) | 1 IN (1, NULL)
    'x' SIMILAR TO 'x' | 'a' ~~ 'a%' | 'a' NOT LIKE 'b%' | regexp_matches('abc', 'b.') | TRY_CAST('x' AS INTEGER) | '5'::INT
    1::DECIMAL(5,2) | CASE 1 WHEN 1 THEN 'one' END | coalesce(NULL, 3) | greatest(1, 2) | 1 IS DISTINCT FROM NULL
    date_diff('day', DATE '2024-01-01', DATE '2024-03-01') | strptime('2024', '%Y') | round(2.5) | log(100)
    [NULL, 1] | ROW(1, 'a') | array_value(1, 2) | 'A' ILIKE 'a' | format('{} {}', 1, 2) | unhex('2A')
"""
AGGREGATES = """
    array_agg(v ORDER BY v DESC) | count(*) FILTER (v > 1) | quantile_cont(v, 0.5) | string_agg(v::VARCHAR, '-' ORDER BY v)
    arg_max(v, v) | list(v ORDER BY v) | bool_and(v > 0) | max(v, 1) | count(DISTINCT v) | sum(v) / count(v) | first(v ORDER BY v)
"""


@pytest.mark.parametrize("expressions", [SCALARS, AGGREGATES], ids=["scalars", "aggregates"])
def test_written_expressions_mean_what_they_mean_in_duckdb(lake: Lake, expressions: str) -> None:
    """A writing statement is taken apart and put together again: nothing may change on the way."""
    items = re.split(r" \| |\n", expressions.strip())
    items = [item.strip() for item in items]
    source = " FROM (VALUES (1), (2)) t(v)" if expressions is AGGREGATES else ""
    query = f"SELECT {', '.join(f'CAST({item} AS VARCHAR)' for item in items)}{source}"
    wanted = dict(zip(items, lake.con.execute(query).fetchall()[0], strict=True))
    names = [f"c{n}" for n in range(len(items))]
    lake.sql(f"CREATE TABLE t ({', '.join(f'{n} VARCHAR' for n in names)})")
    lake.sql(f"INSERT INTO t {query}")
    assert dict(zip(items, lake.sql("SELECT * FROM t").fetchall()[0], strict=True)) == wanted
    if expressions is SCALARS:
        lake.sql(f"UPDATE t SET {', '.join(f'{n} = CAST({item} AS VARCHAR)' for n, item in zip(names, items, strict=True))}")
        assert dict(zip(items, lake.sql("SELECT * FROM t").fetchall()[0], strict=True)) == wanted


def test_update_and_delete(lake: Lake, people: pa.Table) -> None:
    lake.write("people", people)
    assert lake.sql("UPDATE people SET name = coalesce(name, 'none') || '!', id = id * 10 WHERE id <> 2").fetchall() == [(2, 1)]
    assert lake.sql("SELECT * FROM people ORDER BY id").fetchall() == [(2, "Bo"), (10, "Ada!"), (30, "none!")]
    assert lake.sql("DELETE FROM people WHERE name LIKE '%!' AND people.id > 10").fetchall() == [(1, 1)]
    assert lake.sql("DELETE FROM people WHERE false").fetchall() == [(0, 0)]
    assert lake.table("people").version() == 2
    lake.sql("DELETE FROM people")
    assert lake.sql("SELECT count(*) FROM people").fetchall() == [(0,)]


def test_an_alias_names_the_table(lake: Lake, people: pa.Table) -> None:
    lake.write("people", people)
    lake.sql("UPDATE people AS p SET name = p.name || '!' WHERE p.id = 1")
    lake.sql("DELETE FROM people AS p WHERE P.id = 2")
    assert lake.sql("SELECT * FROM people ORDER BY id").fetchall() == [(1, "Ada!"), (3, None)]


def test_an_update_sees_the_old_row(lake: Lake) -> None:
    lake.write("t", pa.table({"a": [1], "b": [2]}))
    lake.sql("UPDATE t SET a = b, b = a")
    assert lake.sql("SELECT a, b FROM t").fetchall() == [(2, 1)]


def test_only_files_with_matching_rows_are_rewritten(lake: Lake) -> None:
    for n in range(3):
        lake.write("t", pa.table({"n": [n * 10, n * 10 + 1]}))
    before = set(lake.table("t").files()["path"].to_pylist())
    assert lake.sql("DELETE FROM t WHERE n = 10").fetchall() == [(1, 1)]
    assert len(before & set(lake.table("t").files()["path"].to_pylist())) == 2


def test_delete_with_a_subquery(lake: Lake, people: pa.Table) -> None:
    lake.write("people", people)
    lake.write("gone", pa.table({"id": [1, 2]}))
    lake.sql("DELETE FROM people WHERE id IN (SELECT id FROM gone)")
    assert lake.sql("SELECT id FROM people").fetchall() == [(3,)]
    lake.sql("UPDATE people SET name = (SELECT CAST(max(id) AS VARCHAR) FROM gone)")
    assert lake.sql("SELECT name FROM people").fetchall() == [("2",)]


def test_create_and_drop(lake: Lake) -> None:
    lake.sql("CREATE TABLE t AS SELECT range AS n, range % 2 AS p FROM range(10)")
    lake.sql("CREATE TABLE IF NOT EXISTS t AS SELECT 1 AS other")
    with pytest.raises(TableExistsError, match="'t'"):
        lake.sql("CREATE TABLE t (a INT)")
    with pytest.raises(TableExistsError, match="'t'"):
        lake.sql("CREATE TABLE t AS SELECT 1 AS a")
    assert lake.sql("SELECT count(*) FROM t").fetchall() == [(10,)]
    lake.sql("CREATE OR REPLACE TABLE t AS SELECT 1 AS other")
    assert lake.sql("SELECT * FROM t").fetchall() == [(1,)]
    assert lake.table("t").version() == 1  # the past is kept
    assert lake.sql("SELECT count(*) FROM t AT (VERSION => 0)").fetchall() == [(10,)]
    lake.sql("DROP TABLE t")
    lake.sql("DROP TABLE IF EXISTS t")
    with pytest.raises(TableNotFoundError, match="'t'"):
        lake.sql("DROP TABLE t")


def test_create_as_select_from_itself_is_read_before_it_is_replaced(lake: Lake, people: pa.Table) -> None:
    lake.write("people", people)
    lake.sql("CREATE OR REPLACE TABLE people AS SELECT id + 1 AS id FROM people")
    assert lake.sql("SELECT id FROM people ORDER BY 1").fetchall() == [(2,), (3,), (4,)]


def test_several_statements_answer_with_the_last(lake: Lake) -> None:
    rows = lake.sql(
        "CREATE TABLE t (a INT); INSERT INTO t VALUES (1), (2); SELECT sum(a) FROM t; SELECT max(a) FROM t"
    ).fetchall()
    assert rows == [(2,)]
    assert lake.table("t").version() == 1


@pytest.mark.parametrize(
    ("statement", "error", "named"),
    [
        ("SELECT * FROM nowhere", TableNotFoundError, "nowhere"),
        ("SELECT * FROM people AT (VERSION => 7)", VersionNotFoundError, "no version 7.*0 to 0"),
        ("SELECT * FROM people AT (VERSION => NULL)", QueryError, "not NULL"),
        ("SELECT * FROM people AT (VERSION => 'x')", DeltaduckError, "x"),
        ("SELECT * FROM people AT (TIMESTAMP => '1999-01-01')", VersionNotFoundError, "did not exist at 1999-01-01"),
        ("SELECT * FROM people AT (BRANCH => 'x')", QueryError, "BRANCH"),
        ("SELECT * FROM nowhere AT (VERSION => 0)", TableNotFoundError, "nowhere"),
        ("SELECT nope FROM people", QueryError, "nope"),
        ("SELEC 1", QueryError, "SELEC"),
        ("SELECT 1 +", QueryError, "."),
        ("INSERT INTO nowhere VALUES (1)", TableNotFoundError, "nowhere"),
        ("INSERT INTO people VALUES (1)", QueryError, "1 columns, and 2 are wanted: id, name"),
        ("INSERT INTO people (id, nope) VALUES (1, 2)", DeltaduckError, "nope"),
        ("INSERT INTO people VALUES ('x', 'y')", DeltaduckError, "x"),
        ("INSERT INTO people VALUES (1, 'a') RETURNING id", UnsupportedFeatureError, "RETURNING"),
        ("INSERT OR REPLACE INTO people VALUES (1, 'a')", UnsupportedFeatureError, "."),
        ("INSERT INTO people SELECT * FROM nowhere", TableNotFoundError, "nowhere"),
        ("INSERT INTO people BY NAME SELECT nope FROM people", QueryError, "nope"),
        ("CREATE TABLE t AS SELECT nope FROM people", QueryError, "nope"),
        ("EXPLAIN ANALYZE DELETE FROM people", UnsupportedFeatureError, "EXPLAIN is for statements that read"),
        ("WITH x AS (SELECT 1 AS n) DELETE FROM people WHERE id IN (FROM y)", TableNotFoundError, "y"),
        ("DELETE FROM people USING other WHERE people.id = other.id", TableNotFoundError, "other"),
        ("UPDATE people SET name = 'x' FROM other", TableNotFoundError, "other"),
        ("DROP TABLE people, other", DeltaduckError, "."),
        ("UPDATE nowhere SET a = 1", TableNotFoundError, "nowhere"),
        ("UPDATE people SET nope = 1", DeltaduckError, "nope.*id, name"),
        ("UPDATE people SET id = nope", QueryError, "nope"),
        ("DELETE FROM nowhere", TableNotFoundError, "nowhere"),
        ("DELETE FROM people WHERE nope = 1", QueryError, "nope"),
        ("CREATE TABLE dl_mine (a INT)", DeltaduckError, "dl_"),
        ("CREATE TABLE t (a INT PRIMARY KEY)", UnsupportedFeatureError, "PRIMARY KEY"),
        ("CREATE TABLE t (a TIME)", DeltaduckError, "'a'"),
        ("COMMIT", QueryError, "BEGIN one first"),
        ("ROLLBACK", QueryError, "BEGIN one first"),
    ],
)
def test_statements_that_fail_change_nothing(
    lake: Lake, people: pa.Table, statement: str, error: type[DeltaduckError], named: str
) -> None:
    lake.write("people", people)
    with pytest.raises(error, match=named):
        lake.sql(statement).fetchall()
    assert [(t["name"], t["version"]) for t in lake.tables()] == [("people", 0)]
    assert lake.table("people").to_arrow() == people


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM dl_add_files",
        "UPDATE dl_tables SET version = 7",
        "INSERT INTO dl_lake VALUES (1, 'x', 'y', 0)",
        "DROP TABLE dl_tables",
        "ALTER TABLE dl_tables ADD COLUMN x INT",
        "TRUNCATE dl_tables",
        "EXPLAIN ANALYZE DELETE FROM dl_add_files",
        "DROP VIEW dl_history",
        "CREATE OR REPLACE TABLE dl_tables AS SELECT 1 AS x",
    ],
)
def test_the_log_is_not_written_with_sql(lake: Lake, people: pa.Table, statement: str) -> None:
    lake.write("people", people)
    with pytest.raises(DeltaduckError):
        lake.sql(statement).fetchall()
    assert lake.table("people").to_arrow() == people
    assert lake.mirror.verify("people")


def test_one_statement_reads_all_its_tables_at_one_point(open_lake: Callable[[], Lake]) -> None:
    """While another thread moves money between two tables, every sum is the same."""
    import threading

    lake, other = open_lake(), open_lake()
    lake.write("a", pa.table({"money": [100]}))
    lake.write("b", pa.table({"money": [0]}))
    done = threading.Event()

    def move() -> None:
        for n in range(1, 6):
            with other.begin() as tx:
                tx.write("a", pa.table({"money": [100 - n]}), mode="overwrite")
                tx.write("b", pa.table({"money": [n]}), mode="overwrite")
        done.set()

    thread = threading.Thread(target=move)
    thread.start()
    sums = set()
    while not done.is_set():
        sums |= set(lake.sql("SELECT (SELECT sum(money) FROM a) + (SELECT sum(money) FROM b)").fetchall())
    thread.join()
    assert sums == {(100,)}


def test_timestamps_without_a_zone_are_in_the_sessions_zone_as_in_duckdb(lake: Lake, people: pa.Table) -> None:
    lake.write("people", people)
    lake.sql("SET TimeZone = 'UTC'")
    at = lake.table("people").history()[0]["committed"]
    before = (at - dt.timedelta(milliseconds=1)).strftime("%Y-%m-%d %H:%M:%S.%f")
    with pytest.raises(VersionNotFoundError):
        lake.sql(f"SELECT * FROM people AT (TIMESTAMP => TIMESTAMP '{before}')")
    assert lake.sql(f"SELECT count(*) FROM people AT (TIMESTAMP => TIMESTAMP '{at:%Y-%m-%d %H:%M:%S.%f}')").fetchall() == [(3,)]


def test_braces_in_a_predicate_are_text(lake: Lake) -> None:
    lake.write("t", pa.table({"id": [1, 2, 3], "s": ["{x}", "{}", "plain"]}))
    lake.sql("DELETE FROM t WHERE s = '{x}'")
    lake.sql("UPDATE t SET s = '{0}' WHERE s = '{}' AND {'a': id}.a = 2")
    assert lake.sql("FROM t ORDER BY id").fetchall() == [(2, "{0}"), (3, "plain")]


def test_a_table_says_its_history_and_its_detail(shop: Lake) -> None:
    history = shop.sql("DESCRIBE HISTORY main.orders").pl()
    assert history["version"].to_list() == [2, 1, 0]
    assert history["operation"].to_list()[0] == "UPDATE"
    assert shop.sql("desc detail orders").pl()["num_files"].to_list() == [shop.table("orders").detail()["num_files"]]
    with pytest.raises(TableNotFoundError, match="nope"):
        shop.sql("DESCRIBE HISTORY nope")


def test_a_table_may_be_called_history(lake: Lake) -> None:
    lake.sql("CREATE TABLE history (n BIGINT)")
    assert lake.sql("DESCRIBE history").fetchall()[0][0] == "n"
    assert lake.sql("DESCRIBE HISTORY history").pl()["version"].to_list() == [0]
