"""Spark reads every version of every kind of table that the lake mirrors: equal rows, from the log and from our checkpoints."""

from __future__ import annotations

import datetime as dt
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from interop import test_every_version as interop

import deltaduck
from deltaduck import Lake
from deltaduck.mirror import checkpoint

AsText = Callable[[pa.Table], list[str]]
Read = Callable[..., pa.Table]
VECTORS = {"delta.enableDeletionVectors": "true"}


def numbers(first: int, last: int) -> pa.Table:
    n = range(first, last + 1)
    return pa.table({"n": list(n), "g": [f"g{i % 3}" for i in n], "t": [None if i % 5 == 0 else f"t{i}" for i in n]})


def deletion_vectors(lake: Lake, name: str) -> None:
    """Vectors beside the files and in the log, over several statements, partitions and an OPTIMIZE."""
    lake.write(name, numbers(0, 99), partition_by="g", configuration=VECTORS | {"delta.checkpointInterval": "4"})
    lake.sql(f"DELETE FROM {name} WHERE n % 7 = 3")
    lake.sql(f"UPDATE {name} SET t = 'updated' WHERE n BETWEEN 20 AND 30")
    lake.sql(f"DELETE FROM {name} WHERE n < 10")
    lake.sql(f"MERGE INTO {name} t USING (SELECT 50 AS n, 'g2' AS g) s ON t.n = s.n WHEN MATCHED THEN DELETE")
    lake.sql(f"OPTIMIZE {name}")
    lake.sql(f"DELETE FROM {name} WHERE g = 'g1' AND n > 90")


def optimized(lake: Lake, name: str) -> None:
    for n in range(0, 40, 10):
        lake.write(name, numbers(n, n + 9))
    lake.sql(f"OPTIMIZE {name}")
    lake.write(name, numbers(40, 49))
    lake.sql(f"OPTIMIZE {name} ZORDER BY (n, t)")


def merged(lake: Lake, name: str) -> None:
    lake.write(name, numbers(0, 9))
    lake.sql(
        f"MERGE INTO {name} t USING (SELECT * FROM (VALUES (5, 'x'), (8, 'y'), (77, 'z')) v(n, g)) s ON t.n = s.n "
        "WHEN MATCHED AND s.g = 'x' THEN DELETE WHEN MATCHED THEN UPDATE SET g = s.g "
        "WHEN NOT MATCHED THEN INSERT (n, g) VALUES (s.n, s.g) WHEN NOT MATCHED BY SOURCE AND t.n = 0 THEN DELETE"
    )
    lake.sql(f"MERGE WITH SCHEMA EVOLUTION INTO {name} t USING (SELECT 1 AS n, 2.5::DOUBLE AS more) s USING (n) "
             "WHEN MATCHED THEN UPDATE SET * WHEN NOT MATCHED THEN INSERT *")  # fmt: skip


def with_rules(lake: Lake, name: str) -> None:
    """NOT NULL, a CHECK constraint, a generated partition column, defaults; and columns that came later."""
    lake.sql(
        f"CREATE TABLE {name} (id BIGINT NOT NULL, amount DECIMAL(10, 2) DEFAULT 0, at TIMESTAMPTZ, "
        "day DATE GENERATED ALWAYS AS (CAST(at AS DATE)), CONSTRAINT paid CHECK (amount >= 0)) PARTITIONED BY (day)"
    )
    lake.sql(f"INSERT INTO {name} (id, at) VALUES (1, TIMESTAMPTZ '2024-02-29 23:00:00Z'), (2, NULL)")
    lake.sql(f"INSERT INTO {name} (id, amount, at) VALUES (3, 12.34, TIMESTAMPTZ '1969-12-31 00:00:00Z')")
    lake.sql(f"ALTER TABLE {name} ADD COLUMNS (note VARCHAR COMMENT 'what it was', s STRUCT(a INTEGER))")
    lake.sql(f"ALTER TABLE {name} ALTER COLUMN note SET DEFAULT 'none'")
    lake.sql(f"INSERT INTO {name} (id, s) VALUES (4, {{'a': 1}})")
    lake.sql(f"ALTER TABLE {name} ADD COLUMN s.b VARCHAR")
    lake.sql(f"ALTER TABLE {name} ALTER COLUMN id DROP NOT NULL")
    lake.sql(f"ALTER TABLE {name} SET TBLPROPERTIES ('delta.appendOnly' = 'true', 'team' = 'ducks')")
    lake.sql(f"INSERT INTO {name} (amount, s) VALUES (1, {{'a': 2, 'b': 'x'}})")


def restored(lake: Lake, name: str) -> None:
    lake.write(name, numbers(0, 9), configuration=VECTORS)
    lake.sql(f"DELETE FROM {name} WHERE n > 5")
    lake.write(name, pa.table({"n": [100], "extra": [True]}), schema_mode="merge")
    lake.sql(f"RESTORE TABLE {name} TO VERSION AS OF 1")
    lake.sql(f"RESTORE TABLE {name} TO VERSION AS OF 0")


def cloned(lake: Lake, name: str) -> None:
    """Files of another table, by their absolute names."""
    lake.write(f"{name} source", pa.table({"p": ["a b", "ü%", None], "n": [1, 2, 3]}), partition_by="p")
    lake.sql(f'CREATE TABLE {name} SHALLOW CLONE "{name} source"')
    lake.sql(f"DELETE FROM {name} WHERE n = 1")
    lake.write(name, pa.table({"p": ["c"], "n": [4]}))


def cloned_vectors(lake: Lake, name: str) -> None:
    """And files of deletion vectors by theirs."""
    source = f'"{name} söurce"'
    lake.sql(f"CREATE TABLE {source} (n INT) TBLPROPERTIES ('delta.enableDeletionVectors' = 'true')")
    lake.sql(f"INSERT INTO {source} SELECT range FROM range(20); DELETE FROM {source} WHERE n % 5 = 0")
    lake.sql(f"CREATE TABLE {name} SHALLOW CLONE {source}")
    lake.sql(f"DELETE FROM {name} WHERE n = 1")


def converted(lake: Lake, name: str) -> None:
    root = Path(str(lake.storage), name)
    for day, n in (("2024-02-29", 1), ("__HIVE_DEFAULT_PARTITION__", 2)):
        (root / f"day={day}").mkdir(parents=True)
        pq.write_table(pa.table({"n": [n], "x": [float("nan")]}), root / f"day={day}" / "rows.parquet")
    lake.convert(root, name, partition_by={"day": "DATE"})
    lake.write(name, pa.table({"n": [3], "x": [0.5], "day": [dt.date(2024, 3, 1)]}))


def imported(lake: Lake, name: str) -> None:
    """Somebody else's table, which goes on being written by us."""
    from pyspark.sql import SparkSession

    spark, path = SparkSession.getActiveSession(), str(Path(str(lake.storage), name))
    spark.range(20).selectExpr("id", "id % 2 = 0 AS even").write.format("delta").partitionBy("even").save(path)
    spark.sql(f"DELETE FROM delta.`{path}` WHERE id < 3")
    lake.import_table(path, name)
    lake.sql(f"UPDATE {name} SET id = id * 10 WHERE even")
    lake.write(name, pa.table({"id": [7], "even": [None]}, schema=pa.schema({"id": pa.int64(), "even": pa.bool_()})))


def mapped(lake: Lake, name: str) -> None:
    """Renamed, dropped and new columns, nested ones and one that others of the same name were before."""
    lake.write(name, pa.table({"a": [1, 2], "p": ["x", None], "s": [{"b": 1, "c": "u"}, None]}), partition_by="p")
    lake.sql(f"ALTER TABLE {name} SET TBLPROPERTIES ('delta.columnMapping.mode' = 'name')")
    lake.sql(f'ALTER TABLE {name} RENAME COLUMN a TO "a b"')
    lake.sql(f"ALTER TABLE {name} RENAME COLUMN p TO q")
    lake.sql(f"INSERT INTO {name} VALUES (3, 'y', {{'b': 2, 'c': 'v'}})")
    lake.sql(f"ALTER TABLE {name} DROP COLUMN s.c")
    lake.sql(f"ALTER TABLE {name} ADD COLUMNS (a VARCHAR, s.d DOUBLE)")
    lake.sql(f"INSERT INTO {name} VALUES (4, 'z', {{'b': 3, 'd': 0.5}}, 'new')")
    lake.sql(f"UPDATE {name} SET a = 'set' WHERE q = 'x'")


def mapped_by_id(lake: Lake, name: str) -> None:
    lake.write(name, numbers(0, 9), configuration={"delta.columnMapping.mode": "id"})
    lake.sql(f"ALTER TABLE {name} RENAME COLUMN t TO text")
    lake.write(name, pa.table({"n": [10], "text": ["later"]}))


def widened(lake: Lake, name: str) -> None:
    rows = pa.table(
        {"n": pa.array([1, None], pa.int8()), "f": pa.array([0.5, 1.5], pa.float32()), "d": [dt.date(1900, 1, 1), None]}
    )
    lake.write(name, rows, configuration={"delta.enableTypeWidening": "true"})
    for column, wider in (("n", "INTEGER"), ("f", "DOUBLE"), ("d", "TIMESTAMP"), ("n", "BIGINT")):
        lake.sql(f"ALTER TABLE {name} ALTER COLUMN {column} TYPE {wider}")
        lake.sql(f"INSERT INTO {name} VALUES (100, 0.1, '2024-02-29')")
    lake.sql(f"DELETE FROM {name} WHERE n = 1")


def v2_checkpoints(lake: Lake, name: str) -> None:
    lake.write(name, numbers(0, 9), configuration=VECTORS | {"delta.checkpointPolicy": "v2", "delta.checkpointInterval": "3"})
    for n in range(8):
        lake.sql(f"DELETE FROM {name} WHERE n = {n}")
    lake.mirror.compact(name)


def change_data(lake: Lake, name: str) -> None:
    """Every kind of change, with files rewritten; commits that say their own time."""
    properties = {"delta.enableChangeDataFeed": "true", "delta.enableInCommitTimestamps": "true"}
    lake.write(name, numbers(0, 9), partition_by="g", configuration=properties)
    lake.sql(f"UPDATE {name} SET t = 'updated', g = 'moved' WHERE n IN (2, 5)")
    lake.sql(f"DELETE FROM {name} WHERE n = 3")
    lake.sql(
        f"MERGE INTO {name} t USING (SELECT * FROM (VALUES (4, 'x'), (99, 'y')) v(n, t)) s ON t.n = s.n "
        "WHEN MATCHED THEN UPDATE SET t = s.t WHEN NOT MATCHED THEN INSERT (n, t) VALUES (s.n, s.t)"
    )
    lake.write(name, numbers(50, 52), mode="overwrite")


def change_data_of_vectors(lake: Lake, name: str) -> None:
    lake.write(name, numbers(0, 9), configuration=VECTORS | {"delta.enableChangeDataFeed": "true"})
    lake.sql(f"UPDATE {name} SET t = 'updated' WHERE n IN (2, 5)")
    lake.sql(f"DELETE FROM {name} WHERE n = 3")
    lake.sql(f"OPTIMIZE {name}")


def row_tracking(lake: Lake, name: str) -> None:
    lake.write(name, numbers(0, 9), configuration={"delta.enableRowTracking": "true"})
    lake.sql(f"UPDATE {name} SET t = 'updated' WHERE n IN (2, 5)")
    lake.write(name, numbers(10, 12))
    lake.sql(f"DELETE FROM {name} WHERE n = 0")
    lake.sql(f"OPTIMIZE {name}")


def identity_and_clusters(lake: Lake, name: str) -> None:
    identity = "GENERATED ALWAYS AS IDENTITY (START WITH 10 INCREMENT BY 5)"
    lake.sql(f"CREATE TABLE {name} (id BIGINT {identity}, g VARCHAR) CLUSTER BY (g)")
    lake.sql(f"INSERT INTO {name} (g) VALUES ('b'), ('a'), (NULL)")
    lake.sql(f"OPTIMIZE {name}")
    lake.sql(f"INSERT INTO {name} (g) VALUES ('c')")


OWN = [
    identity_and_clusters, change_data, change_data_of_vectors, row_tracking, mapped, mapped_by_id, widened, v2_checkpoints,
    deletion_vectors, optimized, merged, with_rules, restored, cloned, cloned_vectors, converted, imported,
]  # fmt: skip
TABLES = {build.__name__: build for build in [*interop.BUILDERS, *OWN]}


class Mirrored:
    """A lake whose tables are made when first asked for, and not changed afterwards."""

    def __init__(self, lake: Lake) -> None:
        self.lake = lake
        self.made: set[str] = set()

    def table(self, name: str) -> deltaduck.DeltaTable:
        if name not in self.made:
            TABLES[name](self.lake, name)
            self.made.add(name)
        return self.lake.table(name)


@pytest.fixture(scope="module")
def mirrored(spark: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mirrored]:
    with deltaduck.connect(tmp_path_factory.mktemp("mirrored") / "lake.duckdb") as lake:
        yield Mirrored(lake)


def location(table: deltaduck.DeltaTable) -> Path:
    return Path(table.detail()["location"])


@pytest.mark.parametrize("name", TABLES)
def test_every_version_reads_the_same(mirrored: Mirrored, read: Read, as_text: AsText, name: str) -> None:
    table = mirrored.table(name)
    for version in range(table.version() + 1):
        ours, theirs = table.as_of(version).to_arrow(), read(location(table), version)
        assert theirs.column_names == ours.column_names, f"version {version}"
        assert as_text(theirs) == as_text(ours), f"version {version}"


# An identity column takes no values that are given, and this test gives them.
@pytest.mark.parametrize("name", [name for name in TABLES if name != "identity_and_clusters"])
def test_a_copy_can_be_written_by_spark(
    spark: Any, mirrored: Mirrored, read: Read, as_text: AsText, tmp_path: Path, name: str
) -> None:
    """Its protocol and its properties are ones that a writer may take at their word; what it wrote comes back to us."""
    table, copy = mirrored.table(name), tmp_path / "copy"
    shutil.copytree(location(table), copy)
    row = read(copy).slice(0, 1).num_rows  # none in an empty table, which is no commit then
    spark.read.format("delta").load(str(copy)).limit(1).write.format("delta").mode("append").save(str(copy))
    with deltaduck.connect(storage=tmp_path) as lake:
        lake.import_table(copy, "t")
        assert lake.table("t").version() == table.version() + row
        assert as_text(lake.table("t").to_arrow()) == as_text(read(copy))


@pytest.mark.parametrize("name", ["many_commits", "deletion_vectors", "v2_checkpoints"])
@pytest.mark.parametrize("streamed", [False, True], ids=["copied", "streamed"])
def test_a_checkpoint_stands_for_the_commits_before_it(
    mirrored: Mirrored, read: Read, as_text: AsText, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, streamed: bool, name: str
) -> None:
    table, copy, lake = mirrored.table(name), tmp_path / "copy", mirrored.lake
    at = max(int(file.name.split(".")[0]) for file in (location(table) / "_delta_log").glob("*.checkpoint.*parquet"))
    if streamed:  # as a large one would be
        monkeypatch.setattr(checkpoint, "BATCH", 2)
        snapshot = lake.snapshot(name, at)
        checkpoint.write_checkpoint(lake.catalog, lake.con, snapshot, snapshot.commit_ms, over=True)
    shutil.copytree(location(table), copy)
    for version in range(at):
        (copy / "_delta_log" / f"{version:020d}.json").unlink()
    for version in range(at, table.version() + 1):
        assert as_text(read(copy, version)) == as_text(table.as_of(version).to_arrow()), f"version {version}"


@pytest.mark.parametrize("name", ["rewritten", "many_commits", "deletion_vectors", "restored", "cloned"])
def test_describe_history_says_what_was_done(spark: Any, mirrored: Mirrored, name: str) -> None:
    table = mirrored.table(name)
    theirs = {row.version: row for row in spark.sql(f"DESCRIBE HISTORY delta.`{location(table)}`").collect()}
    ours = {commit["version"]: commit for commit in table.history()}
    assert theirs.keys() == ours.keys()
    for version, row in theirs.items():
        commit = ours[version]
        assert (row.operation, row.readVersion, row.isBlindAppend, row.userMetadata) == (
            commit["operation"], commit.get("readVersion"), commit["isBlindAppend"], commit.get("userMetadata")
        )  # fmt: skip
        assert row.operationMetrics == commit["operationMetrics"]
        assert row.timestamp.timestamp() * 1000 == pytest.approx(commit["timestamp"])


def test_describe_detail_counts_the_same_files(spark: Any, mirrored: Mirrored) -> None:
    detail = mirrored.table("with_rules").detail()
    (row,) = spark.sql(f"DESCRIBE DETAIL delta.`{detail['location']}`").collect()
    assert (row.numFiles, row.sizeInBytes) == (detail["num_files"], detail["size_in_bytes"])
    assert (row.partitionColumns, row.properties) == (detail["partition_columns"], detail["properties"])
    assert sorted(row.tableFeatures) == detail["table_features"]


def test_travel_by_timestamp_agrees(spark: Any, read: Read, tmp_path: Path) -> None:
    with deltaduck.connect(tmp_path / "lake.duckdb") as lake:
        for n in range(4):
            lake.write("t", pa.table({"n": [n]}))
            time.sleep(0.004)  # versions are milliseconds apart
        t = lake.table("t")
        for commit in t.history():
            moment = commit["committed"]
            theirs = read(location(t), timestampAsOf=moment.strftime("%Y-%m-%d %H:%M:%S.%f"))
            assert sorted(theirs["n"].to_pylist()) == list(range(t.as_of(timestamp=moment).version() + 1))


@pytest.mark.parametrize("name", ["change_data", "change_data_of_vectors"])
def test_the_change_feed_is_sparks(mirrored: Mirrored, read: Read, as_text: AsText, name: str) -> None:
    table = mirrored.table(name)
    for first, last in ((0, table.version()), (1, 2), (table.version(), table.version())):
        theirs = read(location(table), readChangeFeed=True, startingVersion=first, endingVersion=last)
        ours = table.changes(first, last).to_arrow_table()
        assert theirs.column_names == ours.column_names
        assert as_text(theirs) == as_text(ours), (first, last)


def test_row_ids_are_sparks(spark: Any, mirrored: Mirrored, as_text: AsText) -> None:
    table = mirrored.table("row_tracking")
    columns = "n, _metadata.row_id AS row_id, _metadata.row_commit_version AS row_version"
    theirs = spark.read.format("delta").load(str(location(table))).selectExpr(*columns.split(", ")).toArrow()
    assert as_text(theirs) == as_text(mirrored.lake.sql(f"SELECT {columns} FROM row_tracking").to_arrow_table())
