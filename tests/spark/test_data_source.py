"""Spark as an engine on the catalog: it reads pruned files, and commits through the catalog, one version for all tasks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from interop.test_every_version import nested, primitives
from pyspark.errors import PySparkException

import deltaduck
from deltaduck import spark as deltaduck_spark

AsText = Callable[[pa.Table], list[str]]


@pytest.fixture(scope="module")
def session(spark: Any) -> Any:
    deltaduck_spark.register(spark)
    return spark


class Place:
    """A lake that is opened for each look at it: while it is open here, no task of Spark could open a DuckDB file."""

    def __init__(self, spark: Any, uri: str, data: Path) -> None:
        self.spark, self.uri, self.data = spark, uri, data

    def open(self) -> deltaduck.Lake:
        return deltaduck.connect(self.uri, storage=self.data)

    def do(self, *statements: str) -> None:
        with self.open() as lake:
            for statement in statements:
                lake.sql(statement)

    def rows(self, table: str) -> pa.Table:
        with self.open() as lake:
            return lake.table(table).to_arrow()

    def read(self, table: str, **options: Any) -> Any:
        return self.spark.read.format("deltaduck").options(uri=self.uri, table=table, **options).load()

    def write(self, frame: Any, table: str, mode: str = "append", **options: Any) -> None:
        frame.write.format("deltaduck").mode(mode).options(uri=self.uri, table=table, **options).save()

    def files(self) -> set[str]:
        return {str(file.relative_to(self.data)) for file in self.data.rglob("*.parquet") if "_delta_log" not in file.parts}


@pytest.fixture
def lake(session: Any, place: Callable[[str, Path], str], kind: str, tmp_path: Path) -> Place:
    """An empty one, on each kind of catalog."""
    made = Place(session, place(kind, tmp_path), tmp_path / "data")
    made.open().close()
    return made


@pytest.fixture
def postgres(session: Any, place: Callable[[str, Path], str], tmp_path: Path) -> Place:
    """An empty one on PostgreSQL, for what is the same on every catalog."""
    made = Place(session, place("postgres", tmp_path), tmp_path / "data")
    made.open().close()
    return made


def test_read_write_read(lake: Place, as_text: AsText) -> None:
    """The whole way: a table made by Spark, changed by deltaduck, read by Spark, replaced by Spark."""
    frame = lake.spark.range(0, 100, 1, 4).selectExpr("id", "id % 3 AS g", "CAST(id AS STRING) AS t")
    lake.write(frame, "t", partition_by="g")
    with lake.open() as here:
        table = here.table("t")
        assert table.version() == 0, "four tasks, one version"
        assert table.detail()["partition_columns"] == ["g"]
        assert as_text(table.to_arrow()) == as_text(frame.toArrow())
        here.sql("DELETE FROM t WHERE id < 90")
    assert sorted(lake.read("t").toArrow()["id"].to_pylist()) == list(range(90, 100))
    assert lake.read("t", version=0).count() == 100
    lake.write(lake.read("t").where("id > 95"), "t", "overwrite")
    assert sorted(lake.rows("t")["id"].to_pylist()) == [96, 97, 98, 99]
    with lake.open() as here:
        assert [commit["operation"] for commit in here.table("t").history()] == ["WRITE", "DELETE", "CREATE TABLE AS SELECT"]
        assert here.mirror.verify("t")


def test_every_type_goes_there_and_back(postgres: Place, as_text: AsText) -> None:
    with postgres.open() as here:
        here.write("p", primitives())
        nested(here, "n")
        wanted = {name: here.table(name).to_arrow() for name in ("p", "n")}
    for name, rows in wanted.items():
        frame = postgres.read(name)
        assert as_text(frame.toArrow()) == as_text(rows)
        postgres.write(frame, f"{name}2")
        assert as_text(postgres.rows(f"{name}2")) == as_text(rows)


def test_deleted_rows_partitions_and_mapped_columns_are_read(postgres: Place, as_text: AsText, tmp_path: Path) -> None:
    with postgres.open() as here:
        rows = pa.table({"p": ["a b", "ü%/", None] * 30, "n": range(90)})
        here.write("t", rows, partition_by="p", configuration={"delta.enableDeletionVectors": "true"})
        here.sql("DELETE FROM t WHERE n % 4 = 1")
        wanted = here.table("t").to_arrow()
    assert as_text(postgres.read("t").toArrow()) == as_text(wanted)
    path = tmp_path / "theirs"
    postgres.spark.range(5).selectExpr("id AS old", "id % 2 AS p").write.format("delta").partitionBy("p").save(str(path))
    mapped = (
        "SET TBLPROPERTIES ('delta.columnMapping.mode' = 'name', 'delta.minReaderVersion' = '2', 'delta.minWriterVersion' = '5')"
    )
    postgres.spark.sql(f"ALTER TABLE delta.`{path}` {mapped}")
    postgres.spark.sql(f"ALTER TABLE delta.`{path}` RENAME COLUMN old TO new")
    with postgres.open() as here:
        here.import_table(path, "theirs")
    assert as_text(postgres.read("theirs").toArrow()) == as_text(postgres.spark.read.format("delta").load(str(path)).toArrow())


def test_filters_choose_files_on_the_driver(postgres: Place) -> None:
    with postgres.open() as here:
        for n in range(4):
            here.write("t", pa.table({"n": range(n * 10, n * 10 + 10), "s": [f"s{n}"] * 10}))
        gone = here.table("t").files("n = 35")["path"].to_pylist()
        location = Path(here.table("t").detail()["location"])
    for path in gone:
        (location / path).unlink()  # whoever opens it fails
    for filter, count in (("n < 30", 30), ("n = 7 AND s = 's0'", 1), ("s IN ('s1', 's2')", 20), ("n IS NULL", 0)):
        assert postgres.read("t", filter=filter).count() == count, filter
    with pytest.raises(PySparkException, match="is missing"):
        postgres.read("t").count()


def test_one_frame_under_two_filters(postgres: Place) -> None:
    """Spark's push-down for Python sources would give both sides the filter of one."""
    with postgres.open() as here:
        here.write("t", pa.table({"n": [1, 2, 3]}))
    frame = postgres.read("t")
    assert sorted(frame.where("n = 1").union(frame.where("n = 3")).toArrow()["n"].to_pylist()) == [1, 3]


def test_a_frame_is_of_one_version(postgres: Place) -> None:
    with postgres.open() as here:
        for n in range(3):
            here.write("t", pa.table({"n": [n]}))
            time.sleep(0.004)
        first = here.table("t").history()[-1]["committed"]
    frame = postgres.read("t")
    postgres.do("DELETE FROM t")
    assert frame.count() == 3
    assert postgres.read("t").count() == 0
    assert postgres.read("t", timestamp=first.isoformat()).count() == 1


def test_tasks_read_groups_of_files(postgres: Place) -> None:
    with postgres.open() as here:
        for n in range(6):
            here.write("t", pa.table({"n": [n]}))
    assert postgres.read("t").rdd.getNumPartitions() == 1
    frame = postgres.read("t", partition_bytes=1)
    assert (frame.rdd.getNumPartitions(), frame.count()) == (6, 6)


def test_some_columns(postgres: Place) -> None:
    with postgres.open() as here:
        here.write("t", pa.table({"a": [1], "b": ["x"], "c": [2.5]}))
    reader = postgres.spark.read.format("deltaduck").options(uri=postgres.uri, table="t")
    assert reader.schema("c DOUBLE, a BIGINT").load().toArrow().to_pylist() == [{"c": 2.5, "a": 1}]
    with pytest.raises(PySparkException, match="has no column 'z'"):
        reader.schema("z INT").load().count()


def test_the_tables_rules_hold_for_what_spark_writes(postgres: Place) -> None:
    postgres.do(
        "CREATE TABLE t (id BIGINT NOT NULL, n INTEGER DEFAULT 7, twice BIGINT GENERATED ALWAYS AS (id * 2), "
        "CONSTRAINT positive CHECK (id > 0))"
    )
    postgres.write(postgres.spark.range(1, 4), "t")
    assert sorted(postgres.rows("t").to_pylist(), key=lambda r: r["id"])[0] == {"id": 1, "n": 7, "twice": 2}
    with pytest.raises(PySparkException, match="positive"):
        postgres.write(postgres.spark.range(0, 4), "t")
    with pytest.raises(PySparkException, match="is not in the table"):
        postgres.write(postgres.spark.range(1).selectExpr("id", "1 AS more"), "t")
    assert postgres.rows("t").num_rows == 3


def test_columns_can_come_with_a_write(postgres: Place) -> None:
    postgres.write(postgres.spark.range(1), "t")
    postgres.write(postgres.spark.range(1).selectExpr("id + 1 AS id", "'x' AS more"), "t", schema_mode="merge")
    assert sorted(map(str, postgres.rows("t").to_pylist())) == ["{'id': 0, 'more': None}", "{'id': 1, 'more': 'x'}"]


def test_an_application_transaction_is_committed_once(postgres: Place) -> None:
    for _ in range(2):
        postgres.write(postgres.spark.range(3), "t", app_id="job", app_version=1, commit_metadata="from Spark")
    assert postgres.rows("t").num_rows == 3
    with postgres.open() as here:
        assert here.table("t").history()[0]["userMetadata"] == "from Spark"
        known = {Path(path).name for path in here.table("t").files()["path"].to_pylist()}
    assert {Path(file).name for file in postgres.files()} == known, "what the second one wrote is gone"


# --- when it goes wrong


def test_a_task_that_fails_leaves_nothing(lake: Place) -> None:
    """One task has written its file; then another one fails."""
    lake.write(lake.spark.range(3), "t")
    before = lake.files()
    data, already = str(lake.data), len(before)

    def fail_late(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from pyspark import TaskContext

        task = TaskContext.get()
        assert task is not None
        if task.partitionId() == 1:
            for _ in range(600):  # until the other one's file is there, which is what has to go away
                if len(list(Path(data).rglob("part-*.parquet"))) > already:
                    break
                time.sleep(0.1)
            raise RuntimeError("this task is broken")
        yield from batches

    frame = lake.spark.range(0, 6, 1, 2).mapInArrow(fail_late, "id BIGINT")
    with pytest.raises(PySparkException, match="this task is broken"):
        lake.write(frame, "t")
    assert lake.rows("t").num_rows == 3
    assert lake.files() == before


def test_a_conflict_leaves_nothing(lake: Place) -> None:
    """Somebody else changes the table while the tasks of an overwrite run."""
    lake.write(lake.spark.range(3), "t")
    uri, data = lake.uri, lake.data

    def meanwhile(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        with deltaduck.connect(uri, storage=data) as here:
            here.sql("DELETE FROM t WHERE id = 1")
        yield from batches

    frame = lake.spark.range(10, 20, 1, 1).mapInArrow(meanwhile, "id BIGINT")
    with pytest.raises(PySparkException, match="CommitConflictError"):
        lake.write(frame, "t", "overwrite")
    assert sorted(lake.rows("t")["id"].to_pylist()) == [0, 2]
    with lake.open() as here:
        table = here.table("t")
        known = {Path(path).name for v in (0, 1) for path in table.as_of(v).files()["path"].to_pylist()}
        assert table.version() == 1
    assert {Path(file).name for file in lake.files()} == known


def test_appends_do_not_conflict(postgres: Place) -> None:
    postgres.write(postgres.spark.range(3), "t")
    uri, data = postgres.uri, postgres.data

    def meanwhile(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        with deltaduck.connect(uri, storage=data) as here:
            here.write("t", pa.table({"id": [100]}))
        yield from batches

    postgres.write(postgres.spark.range(10, 12, 1, 1).mapInArrow(meanwhile, "id BIGINT"), "t")
    assert sorted(postgres.rows("t")["id"].to_pylist()) == [0, 1, 2, 10, 11, 100]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "needs .option"),
        ({"uri": "lake.sqlite"}, "which table"),
        ({"uri": "nowhere.sqlite", "table": "t"}, "there is no lake"),
        ({"uri": "URI", "table": "missing"}, "no table 'missing'"),
        ({"uri": "URI", "table": "t", "version": "9"}, "has no version 9"),
        ({"uri": "URI", "table": "t", "version": "x"}, "not a number"),
        ({"uri": "URI", "table": "t", "colour": "red"}, "unknown options for reading: colour"),
    ],
)
def test_what_cannot_be_read(postgres: Place, options: dict[str, str], says: str) -> None:
    postgres.do("CREATE TABLE IF NOT EXISTS t (n INTEGER)")
    options = {key: postgres.uri if value == "URI" else value for key, value in options.items()}
    with pytest.raises(PySparkException, match=says):
        postgres.spark.read.format("deltaduck").options(**options).load().count()
