"""Empty tables, by schema."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
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

Log = Callable[[Lake, str, int], list[dict[str, Any]]]


def test_from_sql_types(lake: Lake) -> None:
    t = lake.create_table("t", {"id": "BIGINT NOT NULL", "tags": "VARCHAR[]", "at": "TIMESTAMPTZ", "p": "STRUCT(x INT, y INT)"})
    assert t.version() == 0
    assert t.to_arrow().num_rows == 0
    assert t.schema() == pa.schema(
        [
            pa.field("id", pa.int64(), nullable=False),
            pa.field("tags", pa.list_(pa.field("element", pa.string()))),
            pa.field("at", pa.timestamp("us", tz="UTC")),
            pa.field("p", pa.struct([pa.field("x", pa.int32()), pa.field("y", pa.int32())])),
        ]
    )


def test_from_an_arrow_schema(lake: Lake) -> None:
    schema = pa.schema(
        [
            pa.field("id", pa.int32(), nullable=False),
            pa.field("s", pa.struct([pa.field("must", pa.int64(), nullable=False)])),
            pa.field("d", pa.decimal128(10, 2)),
        ]
    )
    assert lake.create_table("t", schema).schema() == schema


def test_with_partitions_properties_and_a_description(lake: Lake, log: Log) -> None:
    lake.create_table(
        "t", {"day": "DATE", "n": "INT"}, partition_by="DAY", description="what for", configuration={"delta.appendOnly": "true"}
    )
    detail = lake.table("t").detail()
    assert detail["partition_columns"] == ["day"]
    assert detail["description"] == "what for"
    assert detail["properties"] == {"delta.appendOnly": "true"}
    commit_info, protocol, metadata = log(lake, "t", 0)
    assert commit_info["commitInfo"]["operation"] == "CREATE TABLE"
    assert protocol == {"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}}
    assert metadata["metaData"]["partitionColumns"] == ["day"]
    assert metadata["metaData"]["configuration"] == {"delta.appendOnly": "true"}
    assert metadata["metaData"]["description"] == "what for"


def test_at_a_place_of_its_own(lake: Lake, tmp_path: Path, people: pa.Table) -> None:
    lake.create_table("t", people.schema, location=tmp_path / "else where" / "täble")
    lake.write("t", people)
    assert lake.table("t").detail()["location"] == str(tmp_path / "else where" / "täble")
    assert lake.table("t").to_arrow() == people
    assert (tmp_path / "else where" / "täble" / "_delta_log" / f"{1:020d}.json").exists()


def test_a_taken_place_is_refused(lake: Lake, tmp_path: Path) -> None:
    lake.create_table("t", {"a": "INT"}, location=tmp_path / "here")
    with pytest.raises(TableExistsError, match="here"):
        lake.create_table("u", {"a": "INT"}, location=tmp_path / "here")
    assert [t["name"] for t in lake.tables()] == ["t"]


def test_a_place_with_somebody_elses_table_is_refused(lake: Lake, tmp_path: Path) -> None:
    (tmp_path / "theirs" / "_delta_log").mkdir(parents=True)
    (tmp_path / "theirs" / "_delta_log" / f"{0:020d}.json").write_text('{"commitInfo":{}}')
    with pytest.raises(TableExistsError, match=r"Delta table at .*theirs"):
        lake.create_table("t", {"a": "INT"}, location=tmp_path / "theirs")
    assert lake.tables() == []


@pytest.mark.parametrize("name", ["people", "PEOPLE"])
def test_names_are_taken_whatever_their_case(lake: Lake, people: pa.Table, name: str) -> None:
    lake.write("People", people)
    with pytest.raises(TableExistsError, match=f"{name}.*exists"):
        lake.create_table(name, {"a": "INT"})
    assert lake.table(name).to_arrow() == people
    assert lake.table(name).name == "People"


ODD_NAMES = [
    "with space", 'quo"te', "apo'strophe", "semi;colon", "ünïcode 表", "SELECT", "a.b", "../up", "a/b", "100%", "t?*[x]", "#hash",
    "back\\slash", "new\nline", "filename", "version", "x" * 120,
]  # fmt: skip


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_table_names_are_names(lake: Lake, people: pa.Table, name: str) -> None:
    quoted = '"' + name.replace('"', '""') + '"'
    lake.write(name, people)
    lake.write(name, people)
    lake.sql(f"DELETE FROM {quoted} WHERE id = 2")
    assert lake.sql(f"SELECT count(*) FROM {quoted}").fetchall() == [(4,)]
    assert lake.sql(f"SELECT count(*) FROM {quoted} AT (VERSION => 0)").fetchall() == [(3,)]
    assert lake.table(name).version() == 2
    assert lake.mirror.verify(name), lake.mirror.verify(name)
    if lake.catalog.database == "duckdb":  # only DuckDB can hold a view over Parquet
        assert lake.catalog.fetch(f"SELECT count(*) FROM {quoted}") == [(4,)]
    place = Path(lake.table(name).detail()["location"])
    assert place.parent == Path(lake.storage)  # nothing climbs out of the storage
    lake.drop_table(name)
    with pytest.raises(TableNotFoundError):
        lake.table(name)


@pytest.mark.parametrize("name", ["", "dl_tables", "DL_mine"])
def test_names_that_cannot_be(lake: Lake, people: pa.Table, name: str) -> None:
    with pytest.raises(SchemaMismatchError, match="cannot name a table"):
        lake.write(name, people)
    with pytest.raises(DeltaduckError):  # PostgreSQL refuses even to look for it
        lake.write("nul\0", people)
    assert lake.tables() == []


@pytest.mark.parametrize(
    ("schema", "options", "error", "named"),
    [
        ({"a": "NOTATYPE"}, {}, SchemaMismatchError, "'a'.*NOTATYPE"),
        ({"a": "TIME"}, {}, SchemaMismatchError, "'a'.*TIME"),
        ({"a": "INT", "A": "INT"}, {}, SchemaMismatchError, "'a' and 'A'"),
        ({"": "INT"}, {}, SchemaMismatchError, "empty name"),
        ({"a": "INT"}, {"partition_by": ["b"]}, SchemaMismatchError, "partition column 'b'.*a"),
        ({"a": "INT"}, {"partition_by": ["a"]}, SchemaMismatchError, "not partitioned by"),
        ({"a": "INT", "b": "INT"}, {"partition_by": ["a", "A"]}, SchemaMismatchError, "named twice"),
        ({"a": "INT[]", "b": "INT"}, {"partition_by": ["a"]}, SchemaMismatchError, "'a' is nested"),
        ({"a": "INT"}, {"configuration": {"delta.nope": "1"}}, UnsupportedFeatureError, r"delta\.nope"),
        ({"a": "INT"}, {"configuration": {"delta.checkpointInterval": "x"}}, UnsupportedFeatureError, "checkpointInterval.*'x'"),
        ({}, {}, SchemaMismatchError, "column"),
        (42, {}, SchemaMismatchError, "int"),
    ],
)
def test_what_cannot_be_created(
    lake: Lake, schema: Any, options: dict[str, Any], error: type[DeltaduckError], named: str
) -> None:
    with pytest.raises(error, match=named):
        lake.create_table("t", schema, **options)
    assert lake.tables() == []
    assert not Path(lake.storage, "t", "_delta_log", f"{0:020d}.json").exists()


def test_dropping_frees_the_name_and_keeps_the_files(lake: Lake, people: pa.Table) -> None:
    lake.write("t", people)
    place = Path(lake.table("t").detail()["location"])
    held = lake.table("t")
    lake.drop_table("T")
    assert lake.tables() == []
    assert (place / "_delta_log" / f"{0:020d}.json").exists()
    with pytest.raises(TableNotFoundError):
        lake.sql("SELECT * FROM t")
    lake.write("t", people.slice(0, 1))
    assert lake.table("t").version() == 0
    assert lake.sql("SELECT count(*) FROM t").fetchall() == [(1,)]
    assert Path(lake.table("t").detail()["location"]) != place  # another table, at another place
    with pytest.raises(TableNotFoundError, match="dropped"):
        held.version()


def test_dropping_what_is_not_there(lake: Lake) -> None:
    with pytest.raises(TableNotFoundError, match="'t'"):
        lake.drop_table("t")


def test_a_view_of_ones_own_is_not_replaced(lake: Lake, people: pa.Table) -> None:
    if lake.catalog.database == "duckdb":  # whose file holds the view that a new table would replace
        lake.sql("CREATE VIEW mine AS SELECT 42 AS answer")
        with pytest.raises(TableExistsError, match="mine"):
            lake.write("mine", people)
        assert lake.sql("FROM mine").fetchall() == [(42,)]


def test_without_data_and_with_other_names(lake: Lake, people: pa.Table) -> None:
    lake.write("people", people)
    lake.sql("CREATE TABLE none AS SELECT * FROM people WITH NO DATA")
    lake.sql("CREATE TABLE some (k, v) AS SELECT id, name FROM people WHERE id = 1 WITH DATA")
    assert lake.table("none").to_arrow() == people.slice(0, 0)
    assert lake.table("some").to_arrow().to_pylist() == [{"k": 1, "v": "Ada"}]
    with pytest.raises(QueryError, match="1 columns are named, and the rows have 2"):
        lake.sql("CREATE TABLE other (k) AS SELECT id, name FROM people")


def test_like_another(lake: Lake) -> None:
    lake.sql(
        "CREATE TABLE a (id BIGINT GENERATED ALWAYS AS IDENTITY, m INT NOT NULL DEFAULT 1, c VARCHAR, "
        "CONSTRAINT pos CHECK (m > 0)) PARTITIONED BY (c) TBLPROPERTIES ('x.y' = 'z', 'delta.columnMapping.mode' = 'name')"
    )
    lake.sql("ALTER TABLE a RENAME COLUMN c TO d")
    lake.sql("INSERT INTO a (m) VALUES (1), (2)")
    lake.sql("CREATE TABLE b LIKE a")
    lake.sql("CREATE TABLE c (LIKE a) TBLPROPERTIES ('x.y' = 'w')")
    for name, value in (("b", "z"), ("c", "w")):
        detail = lake.table(name).detail()
        assert (detail["partition_columns"], detail["properties"]["x.y"], lake.table(name).count()) == (["d"], value, 0)
        with pytest.raises(ConstraintViolationError, match="'pos'"):
            lake.sql(f"INSERT INTO {name} (m) VALUES (-1)")
    lake.sql("INSERT INTO b (m, d) VALUES (5, 'x')")
    assert lake.sql("SELECT m, d FROM b").fetchall() == [(5, "x")]
    with pytest.raises(TableNotFoundError, match="nowhere"):
        lake.sql("CREATE TABLE e LIKE nowhere")


def test_replacing_a_table_begins_anew(lake: Lake) -> None:
    lake.sql("CREATE TABLE t (id BIGINT NOT NULL, g VARCHAR, CONSTRAINT pos CHECK (id > 0)) PARTITIONED BY (g) COMMENT 'old'")
    lake.sql("INSERT INTO t VALUES (1, 'a')")
    lake.sql("CREATE OR REPLACE TABLE t (x INT, y VARCHAR NOT NULL, CHECK (x < 9)) CLUSTER BY (x) COMMENT 'new'")
    with pytest.raises(ConstraintViolationError, match="'check_1'"):
        lake.sql("INSERT INTO t VALUES (9, 'y')")
    lake.sql("INSERT INTO t VALUES (-1, 'y')")
    detail = lake.table("t").detail()
    assert (detail["partition_columns"], detail["description"]) == ([], "new")
    lake.sql("CREATE OR REPLACE TABLE t PARTITIONED BY (z) TBLPROPERTIES ('a.b' = 'c') AS SELECT x - 1 AS x, 'p' AS z FROM t")
    lake.sql("CREATE OR REPLACE TABLE fresh (x INT)")
    assert lake.sql("FROM t").fetchall() == [(-2, "p")]
    assert lake.sql("FROM t AT (VERSION => 1)").fetchall() == [(1, "a")]
    detail = lake.table("t").detail()
    assert (detail["partition_columns"], detail["description"], detail["properties"]["a.b"]) == (["z"], None, "c")
    operations = [commit["operation"] for commit in lake.table("t").history()]
    assert operations[0::2] == ["CREATE OR REPLACE TABLE AS SELECT", "CREATE OR REPLACE TABLE", "CREATE TABLE"]
    with pytest.raises(DeltaduckError):
        lake.sql("CREATE OR REPLACE TABLE t AS SELECT CAST('no' AS INT) AS x")
    assert lake.table("t").version() == 4
    assert lake.mirror.verify("t")


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("CREATE TABLE z (a INT) CLUSTERED BY (a) INTO 4 BUCKETS", "CLUSTERED BY"),
        ("CREATE UNLOGGED TABLE z (a INT)", "UNLOGGED"),
        ("CREATE TABLE z (a INT) PARTITIONED BY (year(a))", "GENERATED ALWAYS"),
        ("CREATE TABLE z (a INT CHECK (a))", "'check_1'.*BOOLEAN"),
    ],
)
def test_what_a_definition_says_is_not_passed_over(lake: Lake, statement: str, named: str) -> None:
    with pytest.raises(DeltaduckError, match=named):
        lake.sql(statement)
    assert lake.tables() == []


def test_structs_as_spark_writes_them(lake: Lake) -> None:
    lake.sql(
        "CREATE TABLE t (s STRUCT<a: INT, l: ARRAY<STRUCT<q: STRING>>> NOT NULL COMMENT 'c', m MAP<STRING, INT>) USING DELTA"
    )
    lake.sql("INSERT INTO t VALUES ({'a': 1, 'l': [{'q': 'x'}]}, MAP {'k': 2})")
    assert lake.table("t").to_arrow().to_pylist() == [{"s": {"a": 1, "l": [{"q": "x"}]}, "m": [("k", 2)]}]
