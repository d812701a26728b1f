"""Type widening: a column takes a wider type, and no file is written for it."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deltaduck import Lake
from deltaduck.errors import SchemaMismatchError, UnsupportedFeatureError

Log = Callable[[Lake, str, int], list[dict[str, Any]]]
ON = "TBLPROPERTIES ('delta.enableTypeWidening' = 'true')"


def metadata(lake: Lake, version: int, log: Log) -> dict[str, Any]:
    (found,) = [a["metaData"] for a in log(lake, "t", version) if "metaData" in a]
    return {f["name"]: f for f in json.loads(found["schemaString"])["fields"]}


def test_every_widening_of_the_protocol(lake: Lake, log: Log) -> None:
    steps = {  # column: (type, value, wider types, another value)
        "a": ("TINYINT", 7, ["SMALLINT", "INT", "BIGINT"], 2**40),
        "b": ("INT", 7, ["DOUBLE"], 0.5),
        "c": ("SMALLINT", 7, ["DECIMAL(10,0)", "DECIMAL(14,2)"], Decimal("0.25")),
        "d": ("BIGINT", 2**62, ["DECIMAL(20,0)"], Decimal(10**19)),
        "e": ("FLOAT", 0.5, ["DOUBLE"], 0.1),
        "f": ("DATE", dt.date(2024, 1, 2), ["TIMESTAMP"], dt.datetime(2024, 5, 6, 7)),
        "g": ("DECIMAL(5,2)", Decimal("1.25"), ["DECIMAL(12,4)"], Decimal("0.0001")),
    }
    lake.sql(f"CREATE TABLE t ({', '.join(f'{c} {t}' for c, (t, *_) in steps.items())}) {ON}")
    first, second = (", ".join(f"'{step[i]}'" for step in steps.values()) for i in (1, 3))
    lake.sql(f"INSERT INTO t VALUES ({first})")
    lake.sql("; ".join(f"ALTER TABLE t ALTER COLUMN {c} TYPE {t}" for c, (_, _, wider, _) in steps.items() for t in wider))
    lake.sql(f"INSERT INTO t VALUES ({second})")
    assert lake.sql("FROM t ORDER BY d").fetchall() == [
        (7, 7.0, Decimal(7), Decimal(2**62), 0.5, dt.datetime(2024, 1, 2), Decimal("1.25")),
        tuple(v for *_, v in steps.values()),
    ]
    fields = metadata(lake, 10, log)
    assert fields["a"]["metadata"]["delta.typeChanges"] == [
        {"fromType": "byte", "toType": "short"},
        {"fromType": "short", "toType": "integer"},
        {"fromType": "integer", "toType": "long"},
    ]
    assert fields["f"]["metadata"]["delta.typeChanges"] == [{"fromType": "date", "toType": "timestamp_ntz"}]
    assert lake.sql("SELECT typeof(a), typeof(f) FROM t AT (VERSION => 1)").fetchall() == [("TINYINT", "DATE")]
    kept = {  # (what holds of both files, of the first, of the second, of none)
        "a": ("a > 6", "a = 7", "a > 1000", "a < 0"),
        "b": ("b > 0", "b > 0.75", "b < 1", "b > 8"),
        "d": ("d > 0", "d < 5000000000000000000", "d > 5000000000000000000", "d < 0"),
        "f": ("f > '2023-01-01'", "f = '2024-01-02'", "f > '2024-01-02 01:00:00'", "f > '2025-01-01'"),
        "g": ("g > 0", "g = 1.25", "g < 1", "g > 2"),
    }
    for predicates in kept.values():
        assert [lake.table("t").files(p).num_rows for p in predicates] == [2, 1, 1, 0], predicates
    assert not lake.fsck()
    assert lake.table("t").rebuild_index() == 2
    for predicates in kept.values():
        assert [lake.table("t").files(p).num_rows for p in predicates] == [2, 1, 1, 0], predicates


def test_a_float_is_found_as_the_double_that_it_is(lake: Lake) -> None:
    lake.sql(f"CREATE TABLE t (x FLOAT) {ON}; INSERT INTO t VALUES (0.1); INSERT INTO t VALUES (0.7)")
    lake.sql("ALTER TABLE t ALTER COLUMN x TYPE DOUBLE")
    for _ in range(2):
        assert lake.sql("SELECT count(*) FROM t WHERE x > 0.1 AND x < 0.2").fetchall() == [(1,)]
        assert lake.sql("SELECT count(*) FROM t WHERE x < 0.7 AND x > 0.6").fetchall() == [(1,)]
        assert not lake.fsck()
        lake.table("t").rebuild_index()


def test_old_files_are_filtered_by_the_new_type(lake: Lake) -> None:
    lake.sql(f"CREATE TABLE t (n INT, d INT, s STRUCT(x INT)) {ON}; INSERT INTO t VALUES (1, 1, {{'x': 1}})")
    for column, kind in (("n", "DOUBLE"), ("d", "DECIMAL(12,2)"), ("s.x", "DOUBLE")):
        lake.sql(f"ALTER TABLE t ALTER COLUMN {column} TYPE {kind}")
        assert lake.sql(f"SELECT count(*) FROM t WHERE {column} > 0.6 AND {column} < 1.4").fetchall() == [(1,)]
        assert lake.sql(f"SELECT count(*) FROM t WHERE {column} = 1.4 OR {column} <= 0.6").fetchall() == [(0,)]


def test_what_is_inside_widens_too(lake: Lake, log: Log) -> None:
    lake.sql(f"CREATE TABLE t (s STRUCT(x INT), l SMALLINT[], m MAP(INT, STRUCT(y FLOAT))) {ON}")
    lake.sql("INSERT INTO t VALUES ({'x': 1}, [1, NULL], MAP {1: {'y': 0.5}})")
    lake.sql("ALTER TABLE t ALTER COLUMN s.x TYPE BIGINT; ALTER TABLE t ALTER COLUMN l.element SET DATA TYPE INT")
    lake.table("t").alter.set_column_type("m.key", "BIGINT")
    lake.table("t").alter.set_column_type("m.value.y", "DOUBLE")
    lake.sql("INSERT INTO t VALUES ({'x': 8589934592}, [100000], MAP {8589934592: {'y': 0.1}})")
    assert lake.sql("FROM t ORDER BY s.x").fetchall() == [
        ({"x": 1}, [1, None], {1: {"y": 0.5}}), ({"x": 2**33}, [100000], {2**33: {"y": 0.1}}),
    ]  # fmt: skip
    assert [lake.table("t").files(f"s.x {p}").num_rows for p in ("> 0", "= 1", "< 0")] == [2, 1, 0]
    fields = metadata(lake, 5, log)
    assert fields["s"]["type"]["fields"][0]["metadata"]["delta.typeChanges"] == [{"fromType": "integer", "toType": "long"}]
    assert fields["l"]["metadata"]["delta.typeChanges"] == [{"fromType": "short", "toType": "integer", "fieldPath": "element"}]
    assert fields["m"]["metadata"]["delta.typeChanges"] == [{"fromType": "integer", "toType": "long", "fieldPath": "key"}]


def test_the_feature_comes_with_the_property(lake: Lake, log: Log) -> None:
    lake.write("t", pa.table({"x": pa.array([1], pa.int32())}))
    with pytest.raises(UnsupportedFeatureError, match=r"'t'.*SET TBLPROPERTIES \('delta.enableTypeWidening' = 'true'\)"):
        lake.sql("ALTER TABLE t ALTER COLUMN x TYPE BIGINT")
    lake.sql(f"ALTER TABLE t SET {ON}")
    assert log(lake, "t", 1)[1]["protocol"] == {
        "minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": ["typeWidening"],
        "writerFeatures": ["appendOnly", "invariants", "typeWidening"],
    }  # fmt: skip


def test_partition_values_and_rows_that_change(lake: Lake) -> None:
    lake.sql(f"CREATE TABLE t (p INT, x INT, name VARCHAR) PARTITIONED BY (p) {ON}")
    lake.sql("INSERT INTO t VALUES (1, 1, 'a'), (1, 2, 'b'), (2, 3, 'c')")
    lake.sql("ALTER TABLE t ALTER COLUMN p TYPE BIGINT; ALTER TABLE t ALTER COLUMN x TYPE BIGINT")
    assert lake.table("t").files("p = 1").num_rows == 1
    lake.sql("UPDATE t SET x = x + 4294967296 WHERE p = 1 AND x = 2; INSERT INTO t VALUES (4294967296, 4, 'd')")
    lake.sql("MERGE INTO t USING (SELECT 3 AS x, 'C' AS name) u ON t.x = u.x WHEN MATCHED THEN UPDATE SET name = u.name")
    expected = [(1, 1, "a"), (2, 3, "C"), (2**32, 4, "d"), (1, 2**32 + 2, "b")]
    assert lake.sql("FROM t ORDER BY x").fetchall() == expected
    lake.sql("OPTIMIZE t ZORDER BY (x)")
    assert lake.sql("FROM t ORDER BY x").fetchall() == expected
    (path,) = lake.table("t").file_uris("p = 1")
    assert pq.read_schema(path).field("x").type == pa.int64()
    assert lake.sql("SELECT * FROM t AT (VERSION => 1) ORDER BY x").fetchall() == [(1, 1, "a"), (1, 2, "b"), (2, 3, "c")]


def test_rows_bring_wider_types_where_the_schemas_merge(lake: Lake) -> None:
    def rows(x: pa.DataType, y: pa.DataType) -> pa.Table:
        return pa.table({"x": pa.array([1], x), "s": pa.array([{"y": 2}], pa.struct([("y", y)]))})

    lake.write("t", rows(pa.int16(), pa.float32()), configuration={"delta.enableTypeWidening": "true"})
    lake.write("t", rows(pa.int64(), pa.float64()), schema_mode="merge")
    lake.write("t", rows(pa.int32(), pa.float32()), schema_mode="merge")
    assert lake.sql("SELECT DISTINCT typeof(x), typeof(s.y) FROM t").fetchall() == [("BIGINT", "DOUBLE")]
    with pytest.raises(SchemaMismatchError, match="'x' is BIGINT"):  # whole numbers become decimals when asked to
        lake.write("t", pa.table({"x": pa.array([Decimal(1)], pa.decimal128(30, 0))}), schema_mode="merge")
    lake.sql(f"CREATE TABLE m (x INT, y INT) {ON}; INSERT INTO m VALUES (1, 1)")
    lake.sql("MERGE WITH SCHEMA EVOLUTION INTO m USING (SELECT 4294967296 AS x) u ON m.x = u.x WHEN NOT MATCHED THEN INSERT *")
    assert lake.sql("SELECT x FROM m ORDER BY x").fetchall() == [(1,), (2**32,)]


REFUSED = [
    ("x TYPE SMALLINT", SchemaMismatchError, r"'x' is INTEGER, which cannot become SMALLINT.*BIGINT, DOUBLE, a DECIMAL"),
    ("x TYPE VARCHAR", SchemaMismatchError, "cannot become VARCHAR"),
    ("x TYPE DECIMAL(9,0)", SchemaMismatchError, "cannot become DECIMAL"),
    ("x TYPE INT[]", SchemaMismatchError, "another plain type"),
    ("x TYPE NOSUCHTYPE", SchemaMismatchError, "no DuckDB type"),
    ("name TYPE BLOB", SchemaMismatchError, "it has no wider type"),
    ("s TYPE BIGINT", SchemaMismatchError, "'s' is no plain value"),
    ("s.nothing TYPE BIGINT", SchemaMismatchError, "'s' has no 'nothing' in it"),
    ("nothing TYPE BIGINT", SchemaMismatchError, "no column 'nothing'"),
    ("checked TYPE BIGINT", SchemaMismatchError, "CHECK constraint 'some'"),
]


def test_what_cannot_widen_is_said_and_changes_nothing(lake: Lake) -> None:
    lake.sql(f"CREATE TABLE t (x INT, name VARCHAR, s STRUCT(y INT), checked INT, CONSTRAINT some CHECK (checked > 0)) {ON}")
    for change, error, says in REFUSED:
        with pytest.raises(error, match=says):
            lake.sql(f"ALTER TABLE t ALTER COLUMN {change}")
    assert lake.table("t").version() == 0


def test_an_imported_table_widens_on(lake: Lake, tmp_path: Path) -> None:
    import shutil

    lake.sql(f"CREATE TABLE t (x FLOAT, n INT) {ON}; INSERT INTO t VALUES (0.7, 1); ALTER TABLE t ALTER COLUMN x TYPE DOUBLE")
    shutil.copytree(lake.table("t").detail()["location"], tmp_path / "i")
    lake.import_table(tmp_path / "i")
    assert lake.sql("SELECT count(*) FROM i WHERE x < 0.7").fetchall() == [(1,)]
    lake.sql("ALTER TABLE i ALTER COLUMN n TYPE BIGINT; INSERT INTO i VALUES (0.1, 4294967296)")
    assert lake.sql("SELECT n FROM i WHERE n > 0 ORDER BY n").fetchall() == [(1,), (2**32,)]
