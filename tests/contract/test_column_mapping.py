"""Column mapping: columns are renamed and dropped, and no file is written for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import handmade as h
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deltaduck import Lake
from deltaduck.errors import SchemaMismatchError, UnsupportedFeatureError

Log = Callable[[Lake, str, int], list[dict[str, Any]]]
MAPPED = "TBLPROPERTIES ('delta.columnMapping.mode' = 'name')"


@pytest.fixture
def t(lake: Lake) -> Lake:
    """A table of two files that were written before their columns were mapped."""
    lake.sql("CREATE TABLE t (id BIGINT, day VARCHAR, s STRUCT(x INT, y VARCHAR), l STRUCT(x INT, y INT)[]) PARTITIONED BY (day)")
    lake.sql("INSERT INTO t VALUES (1, 'mon', {'x': 1, 'y': 'a'}, [{'x': 1, 'y': 2}]), (2, 'tue', NULL, NULL)")
    lake.sql(f"ALTER TABLE t SET {MAPPED}")
    return lake


def columns(lake: Lake, version: int, log: Log) -> list[dict[str, Any]]:
    import json

    (metadata,) = [a["metaData"] for a in log(lake, "t", version) if "metaData" in a]
    return json.loads(metadata["schemaString"])["fields"]  # type: ignore[no-any-return]


def test_a_table_that_is_there_keeps_its_names_in_the_files(t: Lake, log: Log) -> None:
    assert t.table("t").version() == 2
    actions = log(t, "t", 2)
    assert actions[1]["protocol"] == {
        "minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": ["columnMapping"],
        "writerFeatures": ["appendOnly", "columnMapping", "invariants"],
    }  # fmt: skip
    assert actions[2]["metaData"]["configuration"] == {
        "delta.columnMapping.mode": "name", "delta.columnMapping.maxColumnId": "8",
    }  # fmt: skip
    numbers = {f["name"]: f["metadata"]["delta.columnMapping.id"] for f in columns(t, 2, log)}
    assert numbers == {"id": 1, "day": 2, "s": 3, "l": 6}
    assert [f["metadata"]["delta.columnMapping.physicalName"] for f in columns(t, 2, log)] == ["id", "day", "s", "l"]
    assert not any("add" in a or "remove" in a for a in actions)


def test_a_new_table_has_names_of_its_own_and_numbers_in_the_files(lake: Lake, log: Log) -> None:
    lake.sql(f"CREATE TABLE t (id BIGINT, day VARCHAR, s STRUCT(x INT)) PARTITIONED BY (day) {MAPPED}")
    lake.sql("INSERT INTO t VALUES (1, 'mon', {'x': 1})")
    fields = {f["name"]: f for f in columns(lake, 0, log)}
    names = {n: f["metadata"]["delta.columnMapping.physicalName"] for n, f in fields.items()}
    assert all(n.startswith("col-") for n in names.values())
    (add,) = [a["add"] for a in log(lake, "t", 1) if "add" in a]
    assert add["partitionValues"] == {names["day"]: "mon"}
    assert f'"nullCount":{{"{names["id"]}":0,"{names["s"]}":{{"col-' in add["stats"]
    schema = pq.read_schema(Path(lake.table("t").detail()["location"], add["path"]))
    assert {f.name: f.metadata[b"PARQUET:field_id"] for f in schema} == {names["id"]: b"1", names["s"]: b"3"}
    assert schema.field(names["s"]).type[0].metadata[b"PARQUET:field_id"] == b"4"


def test_a_few_plain_rows_carry_their_numbers_too(lake: Lake) -> None:
    lake.write("t", pa.table({"id": [1, 2], "name": ["a", "b"]}), configuration={"delta.columnMapping.mode": "id"})
    (path,) = lake.table("t").file_uris()
    schema = pq.read_schema(path.removeprefix("file://"))
    assert [f.metadata[b"PARQUET:field_id"] for f in schema] == [b"1", b"2"]
    assert lake.sql("SELECT name FROM t WHERE id = 2").fetchall() == [("b",)]


def test_names_change_at_every_depth_and_the_past_keeps_its_own(t: Lake) -> None:
    t.sql("ALTER TABLE t RENAME COLUMN id TO key; ALTER TABLE t RENAME COLUMN day TO weekday")
    t.sql("ALTER TABLE t RENAME s.x TO z; ALTER TABLE t RENAME COLUMN l.element.y TO z")
    t.sql("INSERT INTO t VALUES (3, 'mon', {'z': 3, 'y': 'c'}, [{'x': 3, 'z': 4}])")
    assert t.sql("FROM t ORDER BY key").fetchall() == [
        (1, "mon", {"z": 1, "y": "a"}, [{"x": 1, "z": 2}]),
        (2, "tue", None, None),
        (3, "mon", {"z": 3, "y": "c"}, [{"x": 3, "z": 4}]),
    ]
    assert t.sql("SELECT id, s.x FROM t AT (VERSION => 1) WHERE day = 'mon'").fetchall() == [(1, 1)]
    assert t.table("t").detail()["partition_columns"] == ["weekday"]


def test_what_skips_files_goes_by_the_new_name(t: Lake) -> None:
    t.sql("ALTER TABLE t RENAME COLUMN id TO key; ALTER TABLE t RENAME COLUMN s.x TO z; ALTER TABLE t RENAME COLUMN day TO d")
    assert [t.table("t").files(f).num_rows for f in ("key = 1", "key > 2", "d = 'tue'", "s.z = 1", "s.z = 7")] == [1, 0, 1, 1, 0]


def test_a_dropped_column_does_not_come_back_under_its_name(t: Lake, log: Log) -> None:
    t.sql("ALTER TABLE t DROP COLUMN id; ALTER TABLE t ADD COLUMN id BIGINT")
    assert t.sql("SELECT id, s.x FROM t ORDER BY day").fetchall() == [(None, 1), (None, None)]
    (new,) = [f for f in columns(t, 4, log) if f["name"] == "id"]
    assert new["metadata"]["delta.columnMapping.id"] == 9
    t.sql("INSERT INTO t (id, day) VALUES (7, 'mon')")
    assert t.sql("SELECT day, id FROM t WHERE id > 1").fetchall() == [("mon", 7)]
    assert t.sql("SELECT id FROM t AT (VERSION => 1) ORDER BY id").fetchall() == [(1,), (2,)]


def test_fields_of_structs_are_dropped_and_added(t: Lake) -> None:
    t.sql("ALTER TABLE t DROP COLUMNS (s.y, l.element.x); ALTER TABLE t ADD COLUMNS (s.y INT, s.w INT)")
    t.sql("INSERT INTO t VALUES (3, 'mon', {'x': 3, 'y': 4, 'w': 5}, [{'y': 6}])")
    assert t.sql("SELECT s, l FROM t ORDER BY id").fetchall() == [
        ({"x": 1, "y": None, "w": None}, [{"y": 2}]), (None, None), ({"x": 3, "y": 4, "w": 5}, [{"y": 6}]),
    ]  # fmt: skip


def test_rows_change_merge_and_move_as_ever(t: Lake) -> None:
    t.sql("ALTER TABLE t RENAME COLUMN id TO key; ALTER TABLE t DROP COLUMN l; ALTER TABLE t ADD COLUMN n DOUBLE")
    t.sql("ALTER TABLE t ADD CONSTRAINT some CHECK (key > 0)")
    t.sql("UPDATE t SET n = 0.5, s = {'x': 9, 'y': 'z'} WHERE key = 1")
    t.sql("""MERGE INTO t USING (VALUES (2, 2.5), (5, 5.5)) u(key, n) ON t.key = u.key
             WHEN MATCHED THEN UPDATE SET n = u.n WHEN NOT MATCHED THEN INSERT *""")
    t.sql("INSERT INTO t (key, day) VALUES (6, 'mon')")
    t.sql("OPTIMIZE t; OPTIMIZE t ZORDER BY (key, n); DELETE FROM t WHERE key = 6")
    expected = [(1, "mon", {"x": 9, "y": "z"}, 0.5), (2, "tue", None, 2.5), (5, None, None, 5.5)]
    assert t.sql("SELECT * FROM t ORDER BY key").fetchall() == expected
    assert t.table("t").files("n > 5").num_rows == 1
    assert not t.fsck()
    t.sql("RESTORE TABLE t TO VERSION AS OF 1")
    assert t.sql("SELECT id, s.x FROM t ORDER BY id").fetchall() == [(1, 1), (2, None)]


@pytest.mark.parametrize("property", ["delta.enableDeletionVectors", "my.own"])
def test_changes_are_told_in_todays_names(t: Lake, property: str) -> None:
    t.sql(f"ALTER TABLE t SET TBLPROPERTIES ('{property}' = 'true')")
    t.sql("ALTER TABLE t RENAME COLUMN id TO key; UPDATE t SET s = NULL WHERE key = 1; ALTER TABLE t DROP COLUMN l")
    found = t.table("t").changes(5, 6).project("key, s.x, _change_type").fetchall()
    assert sorted(found, key=repr) == [(1, 1, "delete"), (1, None, "insert")]


def test_new_columns_of_frames_are_mapped(t: Lake, log: Log) -> None:
    t.write("t", pa.table({"id": [3], "day": ["mon"], "more": [1.5]}), schema_mode="merge")
    assert t.sql("SELECT more FROM t WHERE more > 1").fetchall() == [(1.5,)]
    assert columns(t, 3, log)[-1]["metadata"]["delta.columnMapping.id"] == 9
    t.write("t", pa.table({"day": ["mon"], "id": [4], "new": [1]}), mode="overwrite", schema_mode="overwrite")
    assert t.sql("FROM t").fetchall() == [("mon", 4, 1)]
    assert [f["metadata"]["delta.columnMapping.id"] for f in columns(t, 4, log)] == [2, 1, 10]


def test_a_restored_table_gives_no_number_away_twice(t: Lake, log: Log) -> None:
    t.sql("ALTER TABLE t ADD COLUMN n INT; RESTORE TABLE t TO VERSION AS OF 2; ALTER TABLE t ADD COLUMN m INT")
    assert columns(t, 5, log)[-1]["metadata"]["delta.columnMapping.id"] == 10


def test_columns_with_statistics_follow_their_names(lake: Lake) -> None:
    lake.sql(f"CREATE TABLE t (a INT, s STRUCT(x INT, y INT)) {MAPPED}")
    lake.sql("ALTER TABLE t SET TBLPROPERTIES ('delta.dataSkippingStatsColumns' = 's.y,a')")
    lake.sql("ALTER TABLE t RENAME COLUMN s TO z; INSERT INTO t VALUES (1, {'x': 1, 'y': 1})")
    assert lake.table("t").detail()["properties"]["delta.dataSkippingStatsColumns"] == "z.y,a"
    assert [lake.table("t").files(f).num_rows for f in ("a = 2", "z.y = 2", "z.x = 2")] == [0, 0, 1]


def test_a_clone_and_an_import_are_mapped_alike(t: Lake, tmp_path: Path) -> None:
    import shutil

    t.sql("ALTER TABLE t RENAME COLUMN id TO key; CREATE TABLE c SHALLOW CLONE t; INSERT INTO c (key, day) VALUES (9, 'wed')")
    shutil.copytree(t.table("t").detail()["location"], tmp_path / "i")
    t.import_table(tmp_path / "i")
    t.sql("INSERT INTO i (key, day) VALUES (9, 'wed'); ALTER TABLE i RENAME COLUMN key TO id")
    assert t.sql("SELECT key, s.x FROM c ORDER BY key").fetchall() == [(1, 1), (2, None), (9, None)]
    assert t.sql("SELECT id, s.x FROM i ORDER BY id").fetchall() == [(1, 1), (2, None), (9, None)]


def test_a_client_without_python_sees_the_new_names(tmp_path: Path) -> None:
    import duckdb

    import deltaduck

    with deltaduck.connect(tmp_path / "lake.duckdb") as lake:
        lake.sql("CREATE TABLE t (id BIGINT, s STRUCT(x INT))")
        lake.sql(f"INSERT INTO t VALUES (1, {{'x': 1}}); ALTER TABLE t SET {MAPPED}")
        lake.sql("ALTER TABLE t RENAME COLUMN id TO key; ALTER TABLE t RENAME COLUMN s.x TO z; INSERT INTO t VALUES (2, NULL)")
    with duckdb.connect(tmp_path / "lake.duckdb", read_only=True) as con:
        assert con.sql("SELECT key, s FROM t ORDER BY key").fetchall() == [(1, {"z": 1}), (2, None)]


def test_in_python(t: Lake) -> None:
    t.table("t").alter.rename_column("s.x", "z")
    t.table("t").alter.drop_columns(["id", "s.y"])
    t.table("t").alter.drop_columns("nothing", raise_if_not_exists=False)
    assert t.sql("SELECT * EXCLUDE (l) FROM t ORDER BY day").fetchall() == [("mon", {"z": 1}), ("tue", None)]


def test_all_in_one_transaction(t: Lake) -> None:
    with t.begin() as tx:
        tx.sql("ALTER TABLE t RENAME COLUMN id TO key")
        tx.sql("INSERT INTO t (key, day) VALUES (3, 'mon')")
        tx.sql("ALTER TABLE t DROP COLUMN s; ALTER TABLE t RENAME COLUMN key TO k")
        assert tx.sql("SELECT k FROM t ORDER BY k").fetchall() == [(1,), (2,), (3,)]
    assert t.sql("SELECT k, day FROM t ORDER BY k").fetchall() == [(1, "mon"), (2, "tue"), (3, "mon")]


REFUSED = [
    ("ALTER TABLE t DROP COLUMN day", SchemaMismatchError, "'day' is a partition column"),
    ("ALTER TABLE t DROP COLUMNS (id, s, l)", SchemaMismatchError, "a column that it is not partitioned by"),
    ("ALTER TABLE t DROP COLUMNS (s.x, s.y)", SchemaMismatchError, "'s.y' is the last"),
    ("ALTER TABLE t DROP COLUMN nothing", SchemaMismatchError, "no column 'nothing'"),
    ("ALTER TABLE t DROP COLUMN s.nothing", SchemaMismatchError, "'nothing'"),
    ("ALTER TABLE t DROP COLUMN l.element", SchemaMismatchError, "no field of a struct"),
    ("ALTER TABLE t RENAME COLUMN l.element TO member", SchemaMismatchError, "no field of a struct"),
    ("ALTER TABLE t RENAME COLUMN nothing TO x", SchemaMismatchError, "no column 'nothing'"),
    ("ALTER TABLE t RENAME COLUMN id TO DAY", SchemaMismatchError, "'DAY' exists already"),
    ("ALTER TABLE t SET TBLPROPERTIES ('delta.columnMapping.mode' = 'id')", UnsupportedFeatureError, "cannot become id"),
    ("ALTER TABLE t SET TBLPROPERTIES ('delta.columnMapping.mode' = 'none')", UnsupportedFeatureError, "cannot become none"),
    ("ALTER TABLE t UNSET TBLPROPERTIES ('delta.columnMapping.mode')", UnsupportedFeatureError, "cannot become none"),
    ("ALTER TABLE t SET TBLPROPERTIES ('delta.columnMapping.maxColumnId' = '99')", UnsupportedFeatureError, "counted"),
]


def test_what_cannot_be_done_is_said_and_changes_nothing(t: Lake) -> None:
    for statement, error, says in REFUSED:
        with pytest.raises(error, match=says):
            t.sql(statement)
    assert t.table("t").version() == 2


def test_a_column_that_a_rule_needs_stays(lake: Lake) -> None:
    lake.sql(f"""CREATE TABLE t (id INT, s STRUCT(x INT, y INT), twice INT GENERATED ALWAYS AS (id * 2),
                 CONSTRAINT some CHECK (s.x > 0)) {MAPPED}""")
    for statement, says in (
        ("ALTER TABLE t DROP COLUMN s", "CHECK constraint 'some'"),
        ("ALTER TABLE t RENAME COLUMN s.x TO z", "CHECK constraint 'some'"),
        ("ALTER TABLE t RENAME COLUMN id TO key", "generated column 'twice'"),
    ):
        with pytest.raises(SchemaMismatchError, match=says):
            lake.sql(statement)
    lake.sql("ALTER TABLE t RENAME COLUMN s.y TO z; ALTER TABLE t DROP COLUMN twice; ALTER TABLE t RENAME COLUMN id TO key")
    assert lake.table("t").schema().names == ["key", "s"]


def test_a_struct_keeps_a_field_that_its_files_have(t: Lake) -> None:
    t.sql("ALTER TABLE t ADD COLUMN s.z INT")
    with pytest.raises(SchemaMismatchError, match="nothing that the first files had of 's'"):
        t.sql("ALTER TABLE t DROP COLUMNS (s.x, s.y)")
    t.sql("ALTER TABLE t DROP COLUMN s.x")
    assert t.sql("SELECT s FROM t ORDER BY id").fetchall() == [({"y": "a", "z": None},), (None,)]


@pytest.mark.parametrize("mode", ["name", "id"])
def test_a_table_that_spark_mapped_is_written_on(lake: Lake, tmp_path: Path, mode: str) -> None:
    """Spark's own protocol for it is (2, 5), which lists no features."""
    path = tmp_path / "t"
    fields = [h.field("id", "long", physical="col-1", mapped_id=1), h.field("day", "string", physical="col-2", mapped_id=2)]
    rows = pa.table([pa.array([1, 2])], schema=pa.schema([pa.field("col-1", pa.int64(), metadata={"PARQUET:field_id": "1"})]))
    settings = {"columnMapping__mode": mode, "columnMapping__maxColumnId": "2"}
    added = h.add(path, "ab/one.parquet", rows, partition={"col-2": "mon"})
    h.commit(path, 0, h.protocol(2, 5), h.metadata(*fields, partition_by=["day"], **settings), added)
    lake.import_table(path)
    lake.sql("INSERT INTO t VALUES (3, 'tue'); UPDATE t SET id = 20 WHERE id = 2; ALTER TABLE t RENAME COLUMN day TO d")
    lake.sql("ALTER TABLE t ADD COLUMN x INT; INSERT INTO t VALUES (4, 'wed', 5)")
    assert lake.sql("FROM t ORDER BY id").fetchall() == [(1, "mon", None), (3, "tue", None), (4, "wed", 5), (20, "mon", None)]
    assert lake.table("t").files("d = 'mon'").num_rows == 1
    detail = lake.table("t").detail()
    assert (detail["min_reader_version"], detail["min_writer_version"]) == (2, 5)
