"""What a statement says is done as DuckDB does it, or refused: nothing is passed over, nothing is done elsewhere."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from deltaduck import (
    ConstraintViolationError,
    DeltaduckError,
    Lake,
    QueryError,
    SchemaMismatchError,
    TableExistsError,
    TableNotFoundError,
    UnsupportedFeatureError,
)

SETUP = [
    "CREATE TABLE t (id BIGINT, name VARCHAR, s STRUCT(x INTEGER, y VARCHAR))",
    "CREATE TABLE u (id BIGINT, n INTEGER)",
    "INSERT INTO t VALUES (1, 'a', {'x': 1, 'y': 'p'}), (2, NULL, NULL)",
    "INSERT INTO u VALUES (2, 20), (3, 30)",
]


@pytest.fixture
def both(lake: Lake) -> Lake:
    for statement in SETUP:
        lake.sql(statement)
    return lake


@pytest.mark.parametrize(
    ("statement", "error", "named"),
    [
        ("DELETE FROM t WHERE id > 0 LIMIT 1", UnsupportedFeatureError, "DELETE .* LIMIT 1"),
        ("UPDATE t SET id = 0 ORDER BY id LIMIT 1", UnsupportedFeatureError, "UPDATE .* ORDER BY id"),
        ("DELETE FROM t LEFT JOIN u ON u.id = t.id", UnsupportedFeatureError, "LEFT JOIN"),
        ("UPDATE t, u SET id = 0", UnsupportedFeatureError, "u"),
        ("DELETE FROM t AT (VERSION => 0)", UnsupportedFeatureError, "AT"),
        ("TRUNCATE TABLE t PARTITION (id = 1)", UnsupportedFeatureError, "TRUNCATE .* PARTITION"),
        ("DELETE t WHERE id = 1", QueryError, "DELETE FROM"),
        ("UPDATE t SET", QueryError, "SET sets nothing"),
        ("UPDATE t SET id = row_number() OVER ()", QueryError, "window functions"),
        ("UPDATE t SET id = max(id)", QueryError, "aggregates"),
        ("CREATE TABLE z (id BIGINT) ON COMMIT DROP", QueryError, "Line 1, Col: 41"),
        ("/* new */ CREATE TABLE z (id BIGINT) SORTED BY (id)", QueryError, "Line 1"),
        ("CREATE TEMP TABLE t AS SELECT 1 AS x", TableExistsError, "'t'"),
        ("DELETE FROM nowhere.t", TableNotFoundError, "nowhere.t"),
        ("CREATE TABLE nowhere.z (id BIGINT)", QueryError, "nowhere"),
        ("INSERT INTO t (id, ID) VALUES (1, 2)", QueryError, "'ID' is named twice"),
        ("MERGE INTO t USING u WHEN MATCHED THEN DELETE", QueryError, "ON"),
        ("MERGE INTO t USING u ON t.id = u.nope WHEN MATCHED THEN DELETE", QueryError, "nope"),
        ("MERGE INTO t USING u USING (id) WHEN NOT MATCHED BY SOURCE THEN UPDATE SET id = u.n", QueryError, "u.n has no value"),
        ("MERGE INTO t USING u USING (id) WHEN NOT MATCHED AND t.id = 1 THEN INSERT (id) VALUES (1)", QueryError, "t.id has no"),
        ("MERGE INTO t USING u USING (id) WHEN MATCHED THEN UPDATE SET id = 1 WHERE u.n > 9", UnsupportedFeatureError, "AND"),
    ],
)
def test_what_cannot_be_done_is_refused(both: Lake, statement: str, error: type[DeltaduckError], named: str) -> None:
    with pytest.raises(error, match=named):
        both.sql(statement).fetchall()
    assert [(t["name"], t["version"]) for t in both.tables()] == [("t", 1), ("u", 1)]
    assert both.con.execute("SELECT table_name FROM duckdb_tables() WHERE table_name IN ('t', 'z')").fetchall() == []


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO u (id) VALUES (9007199254740993), (1e3), ('7'), (true)",
        "INSERT INTO t (id, name) VALUES (1, DATE '2020-01-01'), (2, TIMESTAMP '2020-01-01 10:00:00'), (3, 1.50), (4, 2)",
        "INSERT INTO t (id, s) VALUES (1, row(1, 'a')), (2, {'y': 'b', 'x': 2}), (3, {'x': 3}), (4, NULL)",
        "WITH q AS (SELECT 5 AS id) INSERT INTO u (id) WITH r AS (SELECT id + 1 AS id FROM q) SELECT id FROM r",
        "WITH u AS (SELECT 5 AS id) INSERT INTO u (id) SELECT id FROM u",
        "WITH q AS (SELECT 5 AS id) INSERT INTO u (id) VALUES ((SELECT id FROM q)), (6)",
        "INSERT INTO t (id, name, s) SELECT 5, TIME '10:00', {'x': 2, 'y': NULL} UNION ALL SELECT 6, NULL, NULL",
        "INSERT INTO t (id, s) SELECT 1, row(1, 'a')",
        "MERGE INTO u USING (SELECT 2 AS id, 7 AS n) s USING (id) WHEN MATCHED THEN UPDATE BY NAME",
        "MERGE INTO u USING (SELECT 7 AS n, 8 AS id) s USING (id) WHEN NOT MATCHED THEN INSERT BY NAME",
        "MERGE INTO u USING (SELECT 7 AS n, 8 AS id) s USING (id) WHEN NOT MATCHED THEN INSERT BY NAME *",
        "MERGE INTO u USING (SELECT 8 AS id) s USING (id) WHEN NOT MATCHED THEN INSERT DEFAULT VALUES",
    ],
)
def test_it_is_what_duckdb_does(both: Lake, statement: str) -> None:
    both.sql(statement)
    with duckdb.connect() as plain:
        for each in [*SETUP, statement]:
            plain.execute(each)
        for table in ("t", "u"):
            assert both.sql(f"FROM {table} ORDER BY ALL").fetchall() == plain.execute(f"FROM {table} ORDER BY ALL").fetchall()


def test_tables_of_an_attached_database_are_not_the_lakes(both: Lake) -> None:
    both.sql("ATTACH ':memory:' AS other")
    both.sql("CREATE TABLE other.t AS SELECT * FROM t")
    both.sql("INSERT INTO other.main.t SELECT id + 10, name, s FROM t")
    both.sql("UPDATE other.t SET name = 'x'")
    both.sql("DELETE FROM other.t WHERE id < 10")
    assert both.sql("SELECT id, name FROM other.t ORDER BY id").fetchall() == [(11, "x"), (12, "x")]
    both.sql("ALTER TABLE other.t ADD COLUMN more INTEGER")
    both.sql("DROP TABLE other.t")
    assert [(t["name"], t["version"]) for t in both.tables()] == [("t", 1), ("u", 1)]
    both.sql("UPDATE main.u SET n = 0")
    assert both.sql("SELECT sum(n) FROM u").fetchall() == [(0,)]


def test_the_lake_may_be_named_by_its_database(both: Lake) -> None:
    ((name,),) = both.sql("SELECT current_database()").fetchall()
    both.sql(f"DELETE FROM {name}.u WHERE id = 2")
    both.sql(f"ALTER TABLE {name}.main.u ADD COLUMN more INTEGER")
    assert both.sql("FROM u").fetchall() == [(3, 30, None)]


def test_backticks_quote_as_in_spark(lake: Lake) -> None:
    lake.sql("CREATE TABLE `my table` (`a b` INT)")
    lake.sql("INSERT INTO `my table` VALUES (1)")
    lake.sql("UPDATE `my table` SET `a b` = `a b` + 1")
    assert lake.table("my table").to_arrow().to_pylist() == [{"a b": 2}]


def test_default_of_a_generated_column(lake: Lake) -> None:
    lake.sql("CREATE TABLE g (id BIGINT GENERATED ALWAYS AS IDENTITY, a INT, b INT GENERATED ALWAYS AS (a * 2) STORED)")
    lake.sql("INSERT INTO g VALUES (DEFAULT, 1, DEFAULT)")
    lake.sql("INSERT INTO g VALUES (2)")  # as in DuckDB, without what is generated
    lake.sql("INSERT INTO g (a, b) VALUES (3, DEFAULT)")
    lake.sql("UPDATE g SET a = 10, b = DEFAULT WHERE a = 1")
    assert lake.sql("SELECT a, b FROM g ORDER BY id").fetchall() == [(10, 20), (2, 4), (3, 6)]


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE c SET id = NULL WHERE n = 6", r"table 'c': column 'id' is NOT NULL.*one row, such as id = NULL, n = 6"),
        ("UPDATE c SET n = n - 5", r"table 'c': CHECK constraint 'pos' \(n > 0\): broken by one row, such as n = 0, id = 1"),
        (
            "INSERT INTO c VALUES (7, -1)",
            r"table 'c': CHECK constraint 'pos' \(n > 0\): broken by one row, such as n = -1, id = 7",
        ),
        ("MERGE INTO c USING (SELECT 1 AS id) s USING (id) WHEN MATCHED THEN UPDATE SET n = -1", r"table 'c': CHECK .*id = 1"),
        ("MERGE INTO c USING (SELECT 9 AS n) s USING (n) WHEN NOT MATCHED THEN INSERT (id, n) VALUES (NULL, 9)", "'c': .*n = 9"),
    ],
)
def test_a_broken_rule_shows_the_row(lake: Lake, statement: str, said: str) -> None:
    lake.sql("CREATE TABLE c (id BIGINT NOT NULL, n INTEGER, CONSTRAINT pos CHECK (n > 0))")
    lake.sql("INSERT INTO c VALUES (1, 5), (2, 6)")
    with pytest.raises(ConstraintViolationError, match=said):
        lake.sql(statement)
    assert lake.table("c").version() == 1


def test_errors_name_the_table_and_show_no_text_of_ours(both: Lake) -> None:
    for statement, kind, said in (
        ("UPDATE t SET id = 1 WHERE nope = 1", QueryError, "table 't': .*nope"),
        ("UPDATE t SET id = 1 WHERE rowid = 1", QueryError, "table 't': .*rowid"),
        ("UPDATE t SET id = CAST(name AS BIGINT)", SchemaMismatchError, "table 't': a value cannot be converted.*'a'"),
        ("UPDATE t SET id = CASE id WHEN 2 THEN error('no two') ELSE 1 END", QueryError, "table 't': .*no two"),
    ):
        with pytest.raises(kind, match=said) as e:
            both.sql(statement)
        assert not any(word in str(e.value) for word in ("dl_", "LINE 1", "read_parquet", "hive_partitioning"))
    assert both.table("t").version() == 1


def test_tables_are_listed_as_they_are(lake: Lake) -> None:
    def names(listing: str, column: int) -> list[str]:
        return sorted(row[column] for row in lake.sql(listing).fetchall() if not row[column].startswith("dl_"))

    lake.sql("CREATE TABLE a (x INT)")
    lake.sql("CREATE TABLE b (x INT)")
    assert names("SHOW TABLES", 0) == names("SELECT view_name FROM duckdb_views() WHERE NOT internal", 0) == ["a", "b"]
    lake.sql("CREATE VIEW mine AS SELECT * FROM b")
    lake.sql("DROP TABLE a")
    lake.sql("ALTER TABLE b RENAME TO c")
    assert names("SELECT table_name FROM information_schema.tables", 0) == ["c", "mine"]
    with pytest.raises(TableNotFoundError):
        lake.sql("FROM a")


def test_some_columns_are_copied(both: Lake, tmp_path: Path) -> None:
    both.sql(f"COPY t (name, id) TO '{tmp_path}/t.csv' (HEADER)")
    assert (tmp_path / "t.csv").read_text().split() == ["name,id", "a,1", ",2"]
