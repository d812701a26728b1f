"""What the table says of its rows holds on every way that rows take: constraints, generated columns, defaults."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deltaduck import Lake
from deltaduck.errors import ConstraintViolationError, DeltaduckError, QueryError, SchemaMismatchError, UnsupportedFeatureError
from deltaduck.protocol.schema import Field, Struct

CHECKED = "CREATE TABLE t (id BIGINT, g VARCHAR, CONSTRAINT positive CHECK (id > 0))"


@pytest.fixture
def t(lake: Lake) -> Lake:
    lake.sql(CHECKED)
    lake.sql("INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, NULL)")
    return lake


def in_transaction(lake: Lake) -> None:
    with lake.begin() as tx:
        tx.write("t", pa.table({"id": [9]}))
        tx.write("t", pa.table({"id": [-7]}))


WRITES: dict[str, Callable[[Lake], object]] = {
    "insert": lambda lake: lake.sql("INSERT INTO t VALUES (5, 'x'), (-7, 'x')"),
    "append": lambda lake: lake.write("t", pa.table({"id": [5, -7]})),
    "a stream": lambda lake: lake.write("t", pa.table({"id": [5, -7]}).to_reader()),
    "overwrite": lambda lake: lake.write("t", pa.table({"id": [5, -7], "g": ["x", "y"]}), mode="overwrite"),
    "replaceWhere": lambda lake: lake.write("t", pa.table({"id": [-7], "g": ["b"]}), mode="overwrite", predicate="g = 'b'"),
    "update": lambda lake: lake.sql("UPDATE t SET id = -7 WHERE id = 2"),
    "a null": lambda lake: lake.sql("INSERT INTO t (g) VALUES ('x')"),
    "a transaction": in_transaction,
    "MERGE": lambda lake: lake.sql(
        "MERGE INTO t USING (SELECT 2 AS id, -7 AS n) s USING (id) WHEN MATCHED THEN UPDATE SET id = s.n"
    ),
}


@pytest.mark.parametrize("way", WRITES)
def test_every_writer_keeps_a_check(t: Lake, way: str) -> None:
    example = "NULL" if way == "a null" else "-7"
    with pytest.raises(
        ConstraintViolationError, match=rf"table 't': CHECK constraint 'positive' \(id > 0\).*such as id = {example}"
    ):
        WRITES[way](t)
    assert t.sql("SELECT list(id ORDER BY id) FROM t").fetchall() == [([1, 2, 3],)]


def test_the_error_counts_what_can_be_counted_and_is_short(t: Lake) -> None:
    t.sql("ALTER TABLE t ADD CONSTRAINT short CHECK (g IS NULL OR length(g) < 10)")
    with pytest.raises(ConstraintViolationError, match=r"'short'.*broken by 2 rows") as caught:
        t.write("t", pa.table({"id": [1, 2, 3], "g": ["x" * 10_000, "y" * 10_000, "z"]}))
    assert len(str(caught.value)) < 500
    with pytest.raises(ConstraintViolationError, match="at least one row"):
        t.write("t", pa.table({"id": [-1, -2]}).to_reader())


def test_files_of_a_failed_write_do_not_stay(t: Lake) -> None:
    place = Path(t.table("t").detail()["location"])
    before = sorted(place.rglob("*.parquet"))
    with pytest.raises(ConstraintViolationError):
        t.write("t", pa.table({"id": [1, -1]}))
    assert sorted(place.rglob("*.parquet")) == before


def test_deleting_and_optimizing_check_nothing(t: Lake) -> None:
    t.sql("INSERT INTO t VALUES (4, 'd')")
    t.sql("OPTIMIZE t")
    t.sql("DELETE FROM t WHERE id = 1")
    assert t.sql("SELECT count(*) FROM t").fetchall() == [(3,)]


def test_a_generated_column_is_computed_or_checked(lake: Lake) -> None:
    lake.sql("""CREATE TABLE t (at TIMESTAMPTZ, n INT, day DATE GENERATED ALWAYS AS (CAST(at AS DATE)), twice BIGINT AS (n * 2))
                PARTITIONED BY (day)""")
    at = dt.datetime(2024, 5, 6, 12, tzinfo=dt.UTC)
    lake.write("t", pa.table({"at": [at], "n": pa.array([1], pa.int32())}))
    lake.sql("INSERT INTO t (at, n) VALUES ('2024-05-07 12:00:00+00', NULL)")
    lake.write("t", pa.table({"at": [at], "n": pa.array([3], pa.int32()), "day": [dt.date(2024, 5, 6)], "twice": [6]}))
    expected = [(1, dt.date(2024, 5, 6), 2), (3, dt.date(2024, 5, 6), 6), (None, dt.date(2024, 5, 7), None)]
    assert lake.sql("SELECT n, day, twice FROM t ORDER BY n").fetchall() == expected
    with pytest.raises(ConstraintViolationError, match=r"generated column 'twice' is not n \* 2.*such as twice = 7"):
        lake.write("t", pa.table({"at": [at], "n": pa.array([3], pa.int32()), "twice": [7]}))
    lake.sql("UPDATE t SET n = 10 WHERE n = 1")
    assert lake.sql("SELECT twice FROM t WHERE n = 10").fetchall() == [(20,)]
    with pytest.raises(ConstraintViolationError, match="'twice'"):
        lake.sql("UPDATE t SET twice = 1 WHERE n = 10")


def test_replacing_by_a_generated_partition(lake: Lake) -> None:
    lake.sql("CREATE TABLE t (n INT, half INT GENERATED ALWAYS AS (CAST(floor(n / 2) AS INT))) PARTITIONED BY (half)")
    lake.sql("INSERT INTO t (n) VALUES (1), (2), (3), (4)")
    lake.write("t", pa.table({"n": pa.array([3], pa.int32())}), mode="overwrite", predicate="half = 1")
    assert lake.sql("SELECT list(n ORDER BY n) FROM t").fetchall() == [([1, 3, 4],)]
    with pytest.raises(ConstraintViolationError, match="does not match the predicate it replaces: half = 1"):
        lake.write("t", pa.table({"n": pa.array([9], pa.int32())}), mode="overwrite", predicate="half = 1")


def test_defaults_fill_what_a_row_does_not_say(lake: Lake) -> None:
    lake.sql("CREATE TABLE t (id INT, g VARCHAR DEFAULT 'none', at DATE NOT NULL DEFAULT DATE '2024-01-01')")
    lake.sql("INSERT INTO t (id) VALUES (1)")
    lake.sql("INSERT INTO t (id, g) VALUES (2, NULL)")
    lake.write("t", pa.table({"id": pa.array([3], pa.int32()), "g": ["x"]}))
    day = dt.date(2024, 1, 1)
    assert lake.sql("FROM t ORDER BY id").fetchall() == [(1, "none", day), (2, None, day), (3, "x", day)]
    assert lake.table("t").detail()["table_features"] == ["allowColumnDefaults", "invariants"]
    lake.sql("ALTER TABLE t ALTER COLUMN g SET DEFAULT 'other'; ALTER TABLE t ALTER COLUMN at DROP DEFAULT")
    with pytest.raises(SchemaMismatchError, match="'at' is NOT NULL and is missing"):
        lake.write("t", pa.table({"id": pa.array([4], pa.int32())}))


def test_a_default_is_sparks_sql_in_the_log_and_ours_wherever_it_is_asked_for(lake: Lake) -> None:
    lake.sql("CREATE TABLE t (id INT, g VARCHAR DEFAULT 'it''s', n INT DEFAULT length('\\'), since TIMESTAMPTZ DEFAULT now())")
    assert lake.table("t").schema().fields[1].metadata == {"CURRENT_DEFAULT": r"'it\'s'"}
    lake.sql("INSERT INTO t (id) VALUES (1); INSERT INTO t VALUES (2, DEFAULT, DEFAULT, DEFAULT)")
    lake.sql("INSERT INTO t (id, g) VALUES (3, 'x')")
    lake.sql("UPDATE t SET g = DEFAULT, n = DEFAULT WHERE id = 3")
    lake.sql("MERGE INTO t USING (SELECT 4 AS id) s USING (id) WHEN NOT MATCHED THEN INSERT (id) VALUES (s.id)")
    lake.sql("MERGE INTO t USING (SELECT 5 AS id) s USING (id) WHEN NOT MATCHED THEN INSERT (id, g) VALUES (s.id, DEFAULT)")
    lake.table("t").merge(pa.table({"id": [6]}), "source.id = target.id").when_not_matched_insert_all().execute()
    lake.sql("INSERT INTO t DEFAULT VALUES")
    found = lake.sql("SELECT id, g, n, since IS NOT NULL FROM t ORDER BY id NULLS LAST").fetchall()
    assert found == [(i, "it's", 1, True) for i in (1, 2, 3, 4, 5, 6, None)]


def test_default_of_a_generated_column_is_what_it_is_generated_from(lake: Lake) -> None:
    lake.sql("CREATE TABLE t (twice INT GENERATED ALWAYS AS (n * 2), n INT DEFAULT 4)")
    lake.sql("INSERT INTO t VALUES (DEFAULT, 1), (DEFAULT, 2); INSERT INTO t DEFAULT VALUES")
    lake.sql("UPDATE t SET twice = DEFAULT, n = 7 WHERE n = 2")
    lake.sql("MERGE INTO t USING (SELECT 9 AS n) s USING (n) WHEN NOT MATCHED THEN INSERT (n, twice) VALUES (s.n, DEFAULT)")
    assert lake.sql("SELECT n, twice FROM t ORDER BY n").fetchall() == [(1, 2), (4, 8), (7, 14), (9, 18)]
    with pytest.raises(UnsupportedFeatureError, match="DEFAULT for generated column 'twice' must stand in every row"):
        lake.sql("INSERT INTO t VALUES (DEFAULT, 1), (6, 3)")


def test_a_member_that_must_have_a_value_has_none_in_a_struct_that_is_null(lake: Lake, tmp_path: Path) -> None:
    """Arrow, other than its casts, allows that; and so does whoever reads it."""
    lake.sql("CREATE TABLE t (id INT, s STRUCT(a INT, b VARCHAR), l STRUCT(x INT)[]) "
             "TBLPROPERTIES ('delta.enableChangeDataFeed' = 'true')")  # fmt: skip
    for column in ("s.a", "l.element.x"):
        lake.sql(f"ALTER TABLE t ALTER COLUMN {column} SET NOT NULL")
    rows = [
        {"id": 1, "s": {"a": 1, "b": "x"}, "l": [{"x": 1}, None]},
        {"id": 2, "s": None, "l": None},
        {"id": 3, "s": {"a": 3, "b": None}, "l": []},
    ]
    lake.write("t", rows)
    lake.sql("DELETE FROM t WHERE id = 3")
    found = lake.table("t").to_arrow()
    assert found.schema.field("s").type.field("a").nullable is False
    assert found.to_pylist() == rows[:2]
    pq.write_table(found, tmp_path / "rows.parquet")  # which looks whether it is true
    assert lake.table("t").to_pyarrow_dataset().to_table().to_pylist() == rows[:2]
    assert lake.table("t").scan().filter(pl.col("id") == 2).collect()["s"].to_list() == [None]
    assert lake.table("t").to_polars()["s"].to_list() == [{"a": 1, "b": "x"}, None]
    assert lake.table("t").load_cdf(0, columns=["s", "l"]).read_all().num_rows == 4
    with pytest.raises(ConstraintViolationError, match=r"column 's\.a' is NOT NULL"):
        lake.write("t", [{"id": 4, "s": {"a": None, "b": "x"}}])


def test_invariants_of_other_writers_are_kept(lake: Lake) -> None:
    invariant = json.dumps({"expression": {"expression": "n > 3"}})
    lake.create_table("t", Struct((Field("n", "long", metadata={"delta.invariants": invariant}),)))
    assert lake.table("t").detail()["min_writer_version"] == 2
    lake.write("t", pa.table({"n": [4]}))
    with pytest.raises(ConstraintViolationError, match=r"invariant of column 'n' \(n > 3\).*such as n = 3"):
        lake.write("t", pa.table({"n": [3]}))


def test_append_only_with_features_lists_it(lake: Lake) -> None:
    lake.sql("CREATE TABLE t (at TIMESTAMP) TBLPROPERTIES ('delta.appendOnly' = 'true')")
    assert lake.table("t").detail()["table_features"] == ["appendOnly", "timestampNtz"]


def test_a_table_is_created_with_all_it_has(lake: Lake, tmp_path: object) -> None:
    lake.sql(f"""CREATE TABLE t (id INT NOT NULL COMMENT 'the key', n INT CHECK (n < 10), CONSTRAINT big CHECK (id > 5))
                 USING delta COMMENT 'all of it' LOCATION '{tmp_path}/elsewhere' TBLPROPERTIES ('a' = 'b')""")
    d = lake.table("t").detail()
    assert (d["description"], d["location"]) == ("all of it", f"{tmp_path}/elsewhere")
    assert d["properties"] == {"a": "b", "delta.constraints.big": "id > 5", "delta.constraints.check_1": "n < 10"}
    assert d["table_features"] == ["checkConstraints", "invariants"]
    lake.sql("CREATE TABLE u TBLPROPERTIES ('a' = 'c') COMMENT 'copied' AS SELECT 1 AS x")
    assert lake.table("u").detail()["properties"] == {"a": "c"}


@pytest.mark.parametrize(
    ("statement", "error", "says"),
    [
        ("CREATE TABLE t (a INT, b INT GENERATED ALWAYS AS (nothing + 1))", DeltaduckError, "generated column 'b'"),
        ("CREATE TABLE t (a INT, b INT AS (a), c INT AS (b))", QueryError, "another generated column"),
        ("CREATE TABLE t (a INT, b INT AS (hash(a)))", UnsupportedFeatureError, "HASH"),
        ("CREATE TABLE t (a INT, CONSTRAINT c CHECK (a > 0), CONSTRAINT C CHECK (a > 1))", SchemaMismatchError, "stands twice"),
        ("CREATE TABLE t (a INT, CHECK (nothing > 0))", SchemaMismatchError, "needs column 'nothing'"),
        ("CREATE TABLE t (a INT PRIMARY KEY)", UnsupportedFeatureError, "PRIMARY KEY"),
        ("CREATE TABLE t (a INT) USING parquet", UnsupportedFeatureError, "USING"),
        ("CREATE TABLE t (a INT) TBLPROPERTIES ('delta.nothing' = '1')", UnsupportedFeatureError, "delta.nothing"),
    ],
)
def test_rules_that_cannot_be_kept_make_no_table(lake: Lake, statement: str, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        lake.sql(statement)
    assert lake.tables() == []


def test_a_column_that_a_constraint_needs_stays(t: Lake) -> None:
    with pytest.raises(SchemaMismatchError, match=r"'positive'.*needs column 'id'"):
        t.write("t", pa.table({"other": [1]}), mode="overwrite", schema_mode="overwrite")


@pytest.mark.parametrize(
    ("written", "stored"),
    [
        ("id > 0", "id > 0"),
        ('"id" > 0', "`id` > 0"),
        ("id::INT > 0", "CAST(id AS INT) > 0"),
        ("`id` > 0", "`id` > 0"),
        ("g IS NULL OR g LIKE 'a%'", "g IS NULL OR g LIKE 'a%'"),
    ],
)
def test_the_log_has_sparks_sql(t: Lake, written: str, stored: str) -> None:
    t.sql("DELETE FROM t WHERE g = 'b'")
    t.table("t").alter.add_constraint({"c": written})
    assert t.table("t").detail()["properties"]["delta.constraints.c"] == stored


def test_rows_that_a_join_leaves_out_break_no_rule(lake: Lake) -> None:
    lake.sql("CREATE TABLE s AS FROM (VALUES (NULL::BIGINT, -1), (1, 1)) v(id, v)")
    lake.sql("CREATE TABLE t (id BIGINT, v INTEGER, CONSTRAINT positive CHECK (v > 0))")
    lake.sql("INSERT INTO t SELECT id, v FROM s WHERE id IN (SELECT id FROM s) AND (v > 0 OR id > 0)")
    assert lake.sql("FROM t").fetchall() == [(1, 1)]
