"""ALTER TABLE and COMMENT ON, in SQL and in Python: what a table is changes, its data files do not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from deltalake.schema import Field as DeltaField

from deltaduck import Lake
from deltaduck.errors import (
    CommitConflictError,
    ConstraintViolationError,
    DeltaduckError,
    QueryError,
    SchemaMismatchError,
    TableExistsError,
    TableNotFoundError,
    UnsupportedFeatureError,
)

Log = Callable[[Lake, str, int], list[dict[str, Any]]]


@pytest.fixture
def t(lake: Lake, people: pa.Table) -> Lake:
    """A lake with a table `t` of three rows."""
    lake.write("t", people)
    return lake


def protocol(lake: Lake, table: str) -> tuple[int, int, list[str]]:
    d = lake.table(table).detail()
    return d["min_reader_version"], d["min_writer_version"], d["table_features"]


def test_new_columns_are_null_in_old_rows_and_stand_where_they_are_told(t: Lake) -> None:
    t.sql("ALTER TABLE t ADD COLUMN age INT")
    t.sql("ALTER TABLE t ADD COLUMNS (first BOOLEAN FIRST, middle VARCHAR COMMENT 'second name' AFTER id)")
    assert t.table("t").schema().names == ["first", "id", "middle", "name", "age"]
    assert t.sql("SELECT first, id, age FROM t ORDER BY id").fetchall() == [(None, 1, None), (None, 2, None), (None, 3, None)]
    t.sql("INSERT INTO t VALUES (true, 4, 'M', 'Cy', 40)")
    assert t.sql("SELECT * FROM t WHERE age = 40").fetchall() == [(True, 4, "M", "Cy", 40)]
    assert t.sql("SELECT count(*) FROM t AT (VERSION => 0)").fetchall() == [(3,)]


def test_fields_are_added_inside_structs_lists_and_maps(lake: Lake) -> None:
    lake.sql("CREATE TABLE t (s STRUCT(x INT), l STRUCT(x INT)[], m MAP(VARCHAR, STRUCT(x INT)))")
    lake.sql("INSERT INTO t VALUES ({'x': 1}, [{'x': 2}], MAP {'k': {'x': 3}})")
    lake.sql("ALTER TABLE t ADD COLUMNS (s.y DOUBLE, l.element.y INT, m.value.y INT)")
    expected = [({"x": 1, "y": None}, [{"x": 2, "y": None}], {"k": {"x": 3, "y": None}})]
    assert lake.sql("FROM t").fetchall() == expected
    lake.sql("INSERT INTO t VALUES ({'x': 4, 'y': 4}, [{'x': 5, 'y': 5}], MAP {'k': {'x': 6, 'y': 6}})")
    assert lake.sql("SELECT s.y, l[1].y, m['k'].y FROM t WHERE s.x = 4").fetchall() == [(4.0, 5, 6)]


def test_a_column_that_is_there_may_be_asked_for_again(t: Lake) -> None:
    with pytest.raises(SchemaMismatchError, match="'NAME' exists already"):
        t.sql("ALTER TABLE t ADD COLUMN NAME VARCHAR")
    t.sql("ALTER TABLE t ADD COLUMNS IF NOT EXISTS (NAME VARCHAR, extra INT)")
    assert t.table("t").schema().names == ["id", "name", "extra"]


def test_types_may_be_written_as_spark_writes_them(t: Lake) -> None:
    t.sql("ALTER TABLE t ADD COLUMNS (`a list` ARRAY<STRUCT<x: INT, y: STRING>>, m MAP<STRING, DECIMAL(10,2)>)")
    schema = t.table("t").schema()
    assert schema.field("a list").type == pa.list_(pa.field("element", pa.struct([("x", pa.int32()), ("y", pa.string())])))
    assert schema.field("m").type == pa.map_(pa.string(), pa.decimal128(10, 2))


def test_not_null_is_set_when_rows_allow_it(t: Lake) -> None:
    t.sql("ALTER TABLE t ALTER COLUMN id SET NOT NULL")
    assert not t.table("t").schema().field("id").nullable
    with pytest.raises(ConstraintViolationError, match=r"'t'.*'id' is NOT NULL.*one row"):
        t.sql("INSERT INTO t VALUES (NULL, 'x')")
    with pytest.raises(ConstraintViolationError, match=r"table 't': .*'name' is NOT NULL.*one row, such as name = NULL"):
        t.sql("ALTER TABLE t ALTER COLUMN name SET NOT NULL")
    t.sql("ALTER TABLE t ALTER COLUMN id DROP NOT NULL")
    t.sql("INSERT INTO t VALUES (NULL, 'x')")
    assert t.sql("SELECT count(*) FROM t").fetchall() == [(4,)]


def test_not_null_inside_structs_and_lists(lake: Lake) -> None:
    lake.sql("CREATE TABLE t (s STRUCT(x INT), l STRUCT(x INT)[])")
    lake.sql("INSERT INTO t VALUES ({'x': 1}, [{'x': 1}]), (NULL, NULL)")
    lake.sql("ALTER TABLE t ALTER COLUMN s.x SET NOT NULL; ALTER TABLE t ALTER COLUMN l.element.x SET NOT NULL")
    lake.sql("INSERT INTO t VALUES (NULL, []::STRUCT(x INT)[]), ({'x': 2}, [NULL::STRUCT(x INT)])")
    with pytest.raises(ConstraintViolationError, match=r"'s\.x' is NOT NULL"):
        lake.sql("INSERT INTO t VALUES ({'x': NULL::INT}, []::STRUCT(x INT)[])")
    with pytest.raises(ConstraintViolationError, match=r"'l\.element\.x' is NOT NULL"):
        lake.sql("INSERT INTO t VALUES (NULL, [{'x': 1}, {'x': NULL::INT}])")
    assert lake.sql("SELECT count(*) FROM t").fetchall() == [(4,)]


def test_a_check_holds_for_the_rows_that_are_there_and_those_that_come(t: Lake, log: Log) -> None:
    t.sql("ALTER TABLE t ADD CONSTRAINT Positive CHECK (id > 0)")
    actions = log(t, "t", 1)
    assert actions[1]["protocol"] == {
        "minReaderVersion": 1, "minWriterVersion": 7, "writerFeatures": ["appendOnly", "checkConstraints", "invariants"],
    }  # fmt: skip
    assert actions[2]["metaData"]["configuration"] == {"delta.constraints.positive": "id > 0"}


def test_null_does_not_satisfy_a_check(t: Lake) -> None:
    with pytest.raises(ConstraintViolationError, match=r"'named'.*one row, such as name = NULL"):
        t.sql("ALTER TABLE t ADD CONSTRAINT named CHECK (name <> '')")
    assert protocol(t, "t") == (1, 2, [])


def test_constraints_are_dropped_by_name(t: Lake) -> None:
    t.sql("ALTER TABLE t ADD CONSTRAINT positive CHECK (id > 0)")
    with pytest.raises(SchemaMismatchError, match="has a constraint 'POSITIVE' already"):
        t.sql("ALTER TABLE t ADD CONSTRAINT POSITIVE CHECK (id > 1)")
    t.sql("ALTER TABLE t DROP CONSTRAINT positive")
    t.sql("INSERT INTO t VALUES (-1, 'x')")
    with pytest.raises(SchemaMismatchError, match="no constraint 'positive'"):
        t.sql("ALTER TABLE t DROP CONSTRAINT positive")
    t.sql("ALTER TABLE t DROP CONSTRAINT IF EXISTS positive")


def test_properties(t: Lake) -> None:
    t.sql("ALTER TABLE t SET TBLPROPERTIES ('delta.appendOnly' = true, my.own = 'x', 'n' = 5)")
    assert t.table("t").detail()["properties"] == {"delta.appendOnly": "true", "my.own": "x", "n": "5"}
    with pytest.raises(ConstraintViolationError, match="append-only"):
        t.sql("DELETE FROM t")
    t.sql("ALTER TABLE t UNSET TBLPROPERTIES ('delta.appendOnly', 'n')")
    assert t.table("t").detail()["properties"] == {"my.own": "x"}
    assert t.sql("DELETE FROM t").fetchall() == [(3, 1)]
    t.sql("ALTER TABLE t UNSET TBLPROPERTIES IF EXISTS ('n')")


@pytest.mark.parametrize(
    ("statement", "error", "says"),
    [
        ("ALTER TABLE t SET TBLPROPERTIES ('delta.unknown' = 'x')", UnsupportedFeatureError, "delta.unknown"),
        ("ALTER TABLE t SET TBLPROPERTIES ('delta.checkpointInterval' = '0')", UnsupportedFeatureError, "whole number"),
        ("ALTER TABLE t SET TBLPROPERTIES ('delta.constraints.c' = 'id > 0')", UnsupportedFeatureError, "ADD CONSTRAINT"),
        (
            "ALTER TABLE t SET TBLPROPERTIES ('delta.feature.icebergCompatV1' = 'supported')",
            UnsupportedFeatureError,
            "icebergCompatV1",
        ),
        ("ALTER TABLE t UNSET TBLPROPERTIES ('nothing')", UnsupportedFeatureError, "IF EXISTS"),
        ("ALTER TABLE t ADD COLUMN x INT NOT NULL", SchemaMismatchError, "UPDATE the rows, then"),
        ("ALTER TABLE t ADD COLUMN x INT DEFAULT 5", UnsupportedFeatureError, "SET DEFAULT"),
        ("ALTER TABLE t ADD COLUMN x NOSUCHTYPE", SchemaMismatchError, "no DuckDB type"),
        ("ALTER TABLE t ADD COLUMN id.x INT", SchemaMismatchError, "no struct"),
        ("ALTER TABLE t ADD COLUMN x INT AFTER nothing", SchemaMismatchError, "'nothing'"),
        ("ALTER TABLE t ALTER COLUMN nothing SET NOT NULL", SchemaMismatchError, "no column 'nothing'"),
        ("ALTER TABLE t ADD CONSTRAINT c CHECK (nothing > 0)", DeltaduckError, "'nothing'"),
        ("ALTER TABLE t ADD CONSTRAINT c CHECK (id + )", QueryError, "cannot be parsed"),
        ("ALTER TABLE t ADD CONSTRAINT c CHECK (hash(id) > 0)", UnsupportedFeatureError, "hash"),
        ("ALTER TABLE t ADD CONSTRAINT c CHECK (id > (SELECT 1))", UnsupportedFeatureError, "SELECT"),
        ("ALTER TABLE t ADD CONSTRAINT c CHECK (id > 0", QueryError, r"expected \), found the end"),
        ("ALTER TABLE t ALTER COLUMN id SET DEFAULT name", QueryError, "cannot name columns"),
        ("ALTER TABLE t ALTER COLUMN id SET DEFAULT 'x'", QueryError, "default of column 'id'"),
        ("ALTER TABLE t ALTER COLUMN id TYPE DOUBLE", SchemaMismatchError, "cannot become DOUBLE"),
        ("ALTER TABLE t RENAME COLUMN id TO key", UnsupportedFeatureError, "column mapping"),
        ("ALTER TABLE t DROP COLUMN id", UnsupportedFeatureError, "column mapping"),
        ("ALTER TABLE t FROB", QueryError, r"expected ADD, .* found 'FROB' at character 15"),
        ("ALTER TABLE t ALTER COLUMN id FROB", QueryError, "expected SET NOT NULL"),
        ("ALTER TABLE nothing ADD COLUMN x INT", TableNotFoundError, "'nothing'"),
        ("COMMENT ON COLUMN t.nothing IS 'x'", SchemaMismatchError, "'nothing'"),
    ],
)
def test_what_cannot_be_done_is_said_and_changes_nothing(t: Lake, statement: str, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        t.sql(statement)
    assert t.table("t").version() == 0


def test_a_missing_table_may_be_passed_over(lake: Lake) -> None:
    assert lake.sql("ALTER TABLE IF EXISTS nothing ADD COLUMN x INT").fetchall() == [(True,)]


def test_comments(t: Lake, log: Log) -> None:
    t.sql("COMMENT ON TABLE t IS 'who works here'; COMMENT ON COLUMN t.name IS 'it''s theirs'")
    t.sql("ALTER TABLE t ALTER COLUMN id COMMENT 'key'")
    assert t.table("t").detail()["description"] == "who works here"
    schema = log(t, "t", 3)[1]["metaData"]["schemaString"]
    assert '"comment":"key"' in schema
    assert "it's theirs" in schema
    t.sql("COMMENT ON TABLE t IS NULL")
    assert t.table("t").detail()["description"] is None


def test_a_renamed_table_keeps_its_place_and_its_past(t: Lake, open_lake: Callable[[], Lake]) -> None:
    place = t.table("t").detail()["location"]
    t.sql("ALTER TABLE t RENAME TO people")
    assert t.sql("SELECT count(*) FROM people AT (VERSION => 0)").fetchall() == [(3,)]
    assert t.table("people").detail()["location"] == place
    with pytest.raises(TableNotFoundError):
        t.table("t")
    t.write("t", pa.table({"new": [1]}))
    assert [row["name"] for row in t.tables()] == ["people", "t"]
    assert t.mirror.verify("people")
    t.close()
    again = open_lake()
    assert again.sql("SELECT count(*), (SELECT count(*) FROM t) FROM people").fetchall() == [(3, 1)]


def test_a_name_that_is_taken_is_not_given_again(t: Lake) -> None:
    t.write("u", pa.table({"x": [1]}))
    with pytest.raises(TableExistsError, match="'U' exists already"):
        t.sql("ALTER TABLE t RENAME TO U")
    first = t.begin()
    first.sql("ALTER TABLE t RENAME TO v")
    t.sql("ALTER TABLE u RENAME TO v")
    with pytest.raises(TableExistsError, match="'v'"):
        first.commit()
    assert t.sql("SELECT count(*) FROM t").fetchall() == [(3,)]


def test_all_of_it_in_a_transaction(t: Lake) -> None:
    with t.begin() as tx:
        tx.sql("INSERT INTO t VALUES (4, 'Cy')")
        tx.sql("ALTER TABLE t ADD COLUMN age INT")
        tx.sql("UPDATE t SET age = 30 + id")
        tx.sql("ALTER TABLE t ALTER COLUMN age SET NOT NULL; ALTER TABLE t ADD CONSTRAINT grown CHECK (age > 18)")
        tx.sql("ALTER TABLE t RENAME TO people")
        assert tx.sql("SELECT sum(age) FROM people").fetchall() == [(130,)]
        assert t.sql("SELECT count(*) FROM t").fetchall() == [(3,)]
    assert t.table("people").version() == 1
    assert t.sql("SELECT id, age FROM people ORDER BY id").fetchall() == [(1, 31), (2, 32), (3, 33), (4, 34)]
    assert t.mirror.verify("people")
    with pytest.raises(ConstraintViolationError, match="'grown'"), t.begin() as tx:
        tx.sql("UPDATE people SET age = 1 WHERE id = 1")


def test_columns_added_after_rows_of_the_same_transaction(t: Lake) -> None:
    with t.begin() as tx:
        tx.sql("INSERT INTO t VALUES (4, 'Cy')")
        tx.sql("ALTER TABLE t ADD COLUMN age INT")
    t.sql("INSERT INTO t VALUES (5, 'Di', 50)")
    assert t.sql("SELECT id FROM t WHERE age IS NULL ORDER BY id").fetchall() == [(1,), (2,), (3,), (4,)]
    assert t.sql("SELECT id FROM t WHERE age > 40").fetchall() == [(5,)]


def test_a_change_of_what_the_table_is_must_see_every_other_commit(t: Lake) -> None:
    tx = t.begin()
    tx.sql("ALTER TABLE t ADD CONSTRAINT positive CHECK (id > 0)")
    t.sql("INSERT INTO t VALUES (-1, 'x')")
    with pytest.raises(CommitConflictError, match="'t'"):
        tx.commit()


def test_a_writer_that_did_not_see_the_constraint_fails(t: Lake) -> None:
    tx = t.begin()
    tx.sql("INSERT INTO t VALUES (-1, 'x')")
    t.sql("ALTER TABLE t ADD CONSTRAINT positive CHECK (id > 0)")
    with pytest.raises(CommitConflictError, match="schema or properties were changed"):
        tx.commit()


def test_the_python_twin(t: Lake) -> None:
    table = t.table("t")
    table.alter.add_columns({"age": "INTEGER"})
    table.alter.add_columns([DeltaField("city", "string"), DeltaField("zip", "integer")])
    table.alter.add_columns(pa.field("at", pa.timestamp("us", tz="UTC")))
    assert table.schema().names == ["id", "name", "age", "city", "zip", "at"]
    table.alter.add_constraint({"positive": "id > 0"})
    with pytest.raises(ConstraintViolationError):
        table.write(pa.table({"id": [-1]}))
    table.alter.drop_constraint("positive")
    with pytest.raises(SchemaMismatchError):
        table.alter.drop_constraint("positive")
    table.alter.drop_constraint("positive", raise_if_not_exists=False)
    table.alter.set_table_properties({"a": "b", "delta.no": "x"}, raise_if_not_exists=False)
    table.alter.unset_table_properties(["a"])
    table.alter.set_column_metadata("city", {"comment": "where", "unit": "none"})
    table.alter.set_column_not_null("id")
    table.alter.drop_column_not_null("id")
    table.alter.set_table_description("people")
    table.alter.set_table_name("people")
    assert (table.name, table.detail()["description"]) == ("people", "people")
    with pytest.raises(UnsupportedFeatureError, match="use ALTER TABLE"):
        table.alter.set_column_metadata("city", {"delta.generationExpression": "id"})


def test_features_are_added_by_name(t: Lake) -> None:
    with pytest.raises(UnsupportedFeatureError, match="allow_protocol_versions_increase"):
        t.table("t").alter.add_feature("checkConstraints")
    t.table("t").alter.add_feature("CheckConstraints", allow_protocol_versions_increase=True)
    t.sql("ALTER TABLE t SET TBLPROPERTIES ('delta.feature.domainMetadata' = 'supported')")
    assert protocol(t, "t") == (1, 7, ["appendOnly", "checkConstraints", "domainMetadata", "invariants"])


def test_statements_on_tables_of_duckdb_are_duckdbs(lake: Lake) -> None:
    lake.sql("CREATE TEMP TABLE mine (x INT)")
    lake.sql("ALTER TABLE mine ADD COLUMN y INT")
    lake.sql("COMMENT ON TABLE mine IS 'x'")
    lake.sql("VACUUM mine")
    assert lake.sql("FROM mine").columns == ["x", "y"]


def test_several_actions_are_one_commit(lake: Lake) -> None:
    lake.sql("CREATE TABLE several (id BIGINT, n INT)")
    lake.sql("INSERT INTO several VALUES (1, 2)")
    lake.sql("ALTER TABLE several ADD COLUMN a INT, ADD COLUMN b INT, ALTER COLUMN id SET NOT NULL, ADD CHECK (n > 0)")
    assert lake.table("several").version() == 2
    assert lake.sql("FROM several").fetchall() == [(1, 2, None, None)]
    for statement in (
        "ALTER TABLE several ADD COLUMN c INT, ADD CHECK (n > 2)",
        "ALTER TABLE several RENAME TO x, ADD COLUMN c INT",
    ):
        with pytest.raises(DeltaduckError):
            lake.sql(statement)
    assert lake.table("several").version() == 2


def test_columns_move(lake: Lake) -> None:
    lake.sql("CREATE TABLE moved (a INT, b VARCHAR, s STRUCT(x INT, y VARCHAR), p INT) PARTITIONED BY (p)")
    lake.sql("INSERT INTO moved VALUES (1, 'b', {'x': 1, 'y': 'y'}, 5)")
    lake.sql("ALTER TABLE moved ALTER COLUMN b FIRST, ALTER COLUMN s.y FIRST, ALTER COLUMN a AFTER p")
    lake.sql("INSERT INTO moved VALUES ('c', {'y': 'z', 'x': 2}, 6, 2)")
    assert lake.table("moved").schema().names == ["b", "s", "p", "a"]
    assert lake.sql("FROM moved ORDER BY a").fetchall() == [("b", {"y": "y", "x": 1}, 5, 1), ("c", {"y": "z", "x": 2}, 6, 2)]
    assert lake.sql("FROM moved AT (VERSION => 1)").fetchall() == [(1, "b", {"x": 1, "y": "y"}, 5)]
    for place in ("AFTER nope", "AFTER b"):
        with pytest.raises(DeltaduckError, match="cannot follow"):
            lake.sql(f"ALTER TABLE moved ALTER COLUMN b {place}")
    assert lake.mirror.verify("moved")


@pytest.mark.parametrize(
    ("action", "named"),
    [
        ("DROP COLUMN nope", "no column 'nope'"),
        ("ALTER COLUMN n TYPE VARCHAR", "cannot become VARCHAR"),
        ("ADD CONSTRAINT c CHECK (n)", "BOOLEAN"),
        ("ADD PRIMARY KEY (n)", "found 'ADD PRIMARY KEY"),
        ("ALTER COLUMN n TYPE BIGINT USING n + 1", "found 'USING n"),
    ],
)
def test_what_no_property_would_mend_is_said_at_once(lake: Lake, action: str, named: str) -> None:
    lake.sql("CREATE TABLE plain (n INT)")
    with pytest.raises(DeltaduckError, match=named) as e:
        lake.sql(f"ALTER TABLE plain {action}")
    assert "TBLPROPERTIES" not in str(e.value)
    lake.sql("ALTER TABLE plain DROP COLUMN IF EXISTS nope")
