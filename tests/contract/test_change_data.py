"""The change data feed of tables that ask for it: files that tell what happened to rows, for every reader alike."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import deltalake
import pyarrow as pa
import pytest

from deltaduck import Lake
from deltaduck.errors import SchemaMismatchError

ON = {"delta.enableChangeDataFeed": "true"}
ROWS = pa.table({"day": ["a", "a", "a", "b"], "id": pa.array([1, 2, 3, 4], pa.int64()), "v": pa.array([0, 0, 0, 0], pa.int64())})
UPSERT = (
    "MERGE INTO t USING (VALUES ('a', 3, 30), ('b', 4, 40), ('c', 5, 50)) AS s(day, id, v) ON t.id = s.id "
    "WHEN MATCHED AND s.id = 4 THEN DELETE WHEN MATCHED THEN UPDATE SET v = s.v "
    "WHEN NOT MATCHED THEN INSERT (day, id, v) VALUES (s.day, s.id, s.v)"
)


@pytest.fixture(params=["files", "partitions", "vectors"])
def t(lake: Lake, request: pytest.FixtureRequest) -> Lake:
    """A lake with a table that tells its changes: plain, partitioned, with deletion vectors."""
    return with_table(lake, request.param)


def with_table(lake: Lake, how: str) -> Lake:
    configuration = ON | ({"delta.enableDeletionVectors": "true"} if how == "vectors" else {})
    lake.write("t", ROWS, partition_by="day" if how == "partitions" else None, configuration=configuration)
    return lake


def changes(lake: Lake, version: int) -> list[tuple[Any, ...]]:
    return sorted(lake.table("t").changes(version, version).project("_change_type, day, id, v").fetchall())


def told_to_delta_rs(lake: Lake, version: int) -> list[tuple[Any, ...]]:
    table = deltalake.DeltaTable(lake.table("t").detail()["location"])
    rows = pa.table(table.load_cdf(starting_version=version, ending_version=version).read_all())
    return sorted(tuple(r[c] for c in ("_change_type", "day", "id", "v")) for r in rows.to_pylist())


def difference(lake: Lake, version: int) -> Counter[tuple[Any, ...]]:
    """How often each row came, less how often it went, from one version to the next."""
    now, before = (Counter(lake.sql(f"FROM t AT (VERSION => {v})").fetchall()) for v in (version, version - 1))
    now.subtract(before)
    return Counter({row: n for row, n in now.items() if n})


def told(lake: Lake, version: int) -> Counter[tuple[Any, ...]]:
    found: Counter[tuple[Any, ...]] = Counter()
    for kind, *row in changes(lake, version):
        found[tuple(row)] += 1 if kind in ("insert", "update_postimage") else -1
    return Counter({row: n for row, n in found.items() if n})


def change_files(lake: Lake) -> list[Path]:
    return sorted(Path(lake.table("t").detail()["location"]).glob("_change_data/**/*.parquet"))


def test_statements_tell_what_they_do(t: Lake) -> None:
    t.sql("UPDATE t SET v = v + 1 WHERE id = 1")
    t.sql("DELETE FROM t WHERE id = 2")
    t.sql(UPSERT)
    t.write("t", ROWS.slice(0, 1), mode="overwrite", predicate="day = 'a' AND id = 1")
    assert changes(t, 1) == [("update_postimage", "a", 1, 1), ("update_preimage", "a", 1, 0)]
    assert changes(t, 2) == [("delete", "a", 2, 0)]
    assert changes(t, 3) == [
        ("delete", "b", 4, 0), ("insert", "c", 5, 50), ("update_postimage", "a", 3, 30), ("update_preimage", "a", 3, 0),
    ]  # fmt: skip
    assert changes(t, 4) == [("delete", "a", 1, 1), ("insert", "a", 1, 0)]
    assert [told_to_delta_rs(t, version) for version in range(1, 5)] == [changes(t, version) for version in range(1, 5)]
    assert t.mirror.verify("t")


def test_whole_files_tell_it_by_themselves(lake: Lake) -> None:
    t = with_table(lake, "vectors")
    t.write("t", ROWS.slice(0, 1))
    t.write("t", ROWS.slice(1, 2), mode="overwrite")
    t.sql("DELETE FROM t")
    t.sql("OPTIMIZE t")
    assert change_files(t) == []
    for version in range(1, t.table("t").version() + 1):
        assert told(t, version) == difference(t, version)
        assert told_to_delta_rs(t, version) == changes(t, version)


@pytest.mark.parametrize(
    ("how", "statements"),
    [
        ("files", ["INSERT INTO t VALUES ('a', 9, 9)", "UPDATE t SET v = 5 WHERE id = 2", "INSERT INTO t VALUES ('a', 10, 10)"]),
        ("vectors", ["INSERT INTO t VALUES ('a', 9, 9), ('a', 10, 10)", "UPDATE t SET v = 5 WHERE id = 9"]),  # just written
        ("vectors", ["UPDATE t SET v = 5 WHERE id = 2", "UPDATE t SET v = 6 WHERE v = 5", "DELETE FROM t WHERE id IN (2, 3)"]),
        ("files", ["UPDATE t SET v = 5 WHERE id = 2", "DELETE FROM t", "INSERT INTO t VALUES ('c', 1, 1)"]),
        ("partitions", ["INSERT INTO t VALUES ('a', 9, 9)", "UPDATE t SET v = 5", "INSERT OVERWRITE t VALUES ('c', 1, 1)"]),
        ("partitions", ["INSERT INTO t VALUES ('a', 9, 9)", "OPTIMIZE t", "UPDATE t SET v = 5 WHERE id = 2"]),
        ("files", ["DELETE FROM t WHERE day = 'b'", UPSERT]),
        ("files", ["INSERT INTO t VALUES ('a', 9, 9)", "UPDATE t SET v = 5", "RESTORE TABLE t TO VERSION AS OF 0"]),
        ("vectors", ["UPDATE t SET v = 5", "RESTORE TABLE t TO VERSION AS OF 0", "DELETE FROM t WHERE id = 1"]),
    ],
)
def test_a_transaction_tells_the_sum_of_its_statements(lake: Lake, how: str, statements: list[str]) -> None:
    t = with_table(lake, how)
    with t.begin() as tx:
        for statement in statements:
            tx.sql(statement)
    assert told(t, 1) == difference(t, 1)
    assert told_to_delta_rs(t, 1) == changes(t, 1)
    assert t.mirror.verify("t")


def test_generated_columns_are_told_too(lake: Lake) -> None:
    lake.sql(
        "CREATE TABLE t (id BIGINT, v BIGINT, day VARCHAR GENERATED ALWAYS AS (CAST(id AS STRING))) "
        "TBLPROPERTIES ('delta.enableChangeDataFeed' = 'true')"
    )
    lake.sql("INSERT INTO t (id, v) VALUES (1, 0)")
    lake.sql("UPDATE t SET id = 2")
    assert changes(lake, 2) == [("update_postimage", "2", 2, 0), ("update_preimage", "1", 1, 0)]


def test_what_is_rolled_back_leaves_no_change_files(lake: Lake) -> None:
    t = with_table(lake, "files")
    tx = t.begin()
    tx.sql("UPDATE t SET v = 5 WHERE id = 2")
    assert change_files(t) != []
    tx.rollback()
    assert change_files(t) == []


def test_the_protocol_says_so(lake: Lake) -> None:
    lake.write("t", ROWS)
    lake.sql("ALTER TABLE t SET TBLPROPERTIES ('delta.enableChangeDataFeed' = 'true')")
    detail = lake.table("t").detail()
    assert (detail["min_reader_version"], detail["min_writer_version"]) == (1, 7)
    assert "changeDataFeed" in detail["table_features"]
    lake.sql("DELETE FROM t WHERE id = 1")
    assert changes(lake, 2) == [("delete", "a", 1, 0)]


def test_columns_may_not_be_called_as_those_of_the_feed(lake: Lake) -> None:
    with pytest.raises(SchemaMismatchError, match="_change_type"):
        lake.write("t", pa.table({"_change_type": [1]}), configuration=ON)
    lake.write("t", ROWS, configuration=ON)
    with pytest.raises(SchemaMismatchError, match="_commit_version"):
        lake.write("t", ROWS.append_column("_commit_version", ROWS["id"]), schema_mode="merge")


def test_vacuum_takes_old_change_files(lake: Lake) -> None:
    lake.write("t", ROWS, configuration=ON)
    lake.sql("DELETE FROM t WHERE id = 1")
    (file,) = change_files(lake)
    assert f"_change_data/{file.name}" in lake.table("t").vacuum(0, dry_run=False, enforce_retention_duration=False)
    assert change_files(lake) == []
