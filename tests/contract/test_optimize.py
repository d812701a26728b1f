"""OPTIMIZE: fewer and sorted files, the same rows, and nobody is in anybody's way."""

from __future__ import annotations

import datetime as dt
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import deltaduck
from deltaduck import Lake, WriterProperties
from deltaduck.errors import (
    CommitConflictError,
    DeltaduckError,
    LogCorruptError,
    QueryError,
    SchemaMismatchError,
    TableNotFoundError,
)
from deltaduck.operations import optimize

Log = Callable[[Lake, str, int], list[dict[str, Any]]]


@pytest.fixture
def small(lake: Lake) -> Lake:
    """Ten files of one row each in `t`."""
    for n in range(10):
        lake.write("t", pa.table({"n": [n], "g": ["even" if n % 2 == 0 else "odd"]}))
    return lake


def numbers(lake: Lake, table: str = "t") -> list[int]:
    return [n for (n,) in lake.sql(f"SELECT n FROM {table} ORDER BY n").fetchall()]


def test_small_files_become_one_and_nothing_else_changes(small: Lake, log: Log) -> None:
    metrics = small.table("t").optimize.compact()
    assert (metrics["numFilesAdded"], metrics["numFilesRemoved"], metrics["totalConsideredFiles"]) == (1, 10, 10)
    assert json.loads(metrics["filesRemoved"])["totalFiles"] == 10
    assert numbers(small) == list(range(10))
    assert small.sql("SELECT n FROM t").fetchall() == [(n,) for n in range(10)]  # in the order they came
    assert small.table("t").files().num_rows == 1
    assert numbers(small, "t AT (VERSION => 9)") == list(range(10))
    actions = log(small, "t", 10)
    assert {a["dataChange"] for line in actions for a in [line.get("add") or line.get("remove")] if a} == {False}
    assert actions[0]["commitInfo"]["operation"] == "OPTIMIZE"
    assert small.mirror.verify("t")
    again = small.table("t").optimize.compact()
    assert (again["numFilesAdded"], again["numFilesRemoved"]) == (0, 0)
    assert small.table("t").version() == 10


def test_in_sql(small: Lake) -> None:
    assert small.sql("OPTIMIZE t").columns == ["numFilesAdded", "numFilesRemoved", "partitionsOptimized", "totalConsideredFiles"]
    assert small.table("t").files().num_rows == 1
    assert small.sql("OPTIMIZE t ZORDER BY (n, g)").fetchall() == [(1, 1, 1, 1)]
    assert numbers(small) == list(range(10))


def test_files_are_put_together_up_to_the_target(lake: Lake) -> None:
    rows = pa.table({"n": range(20_000), "text": [f"{n * 7919 % 20_000:0>40}" for n in range(20_000)]})
    for start in range(0, 20_000, 1_000):
        lake.write("t", rows.slice(start, 1_000))
    size = int(lake.table("t").files()["size"][0].as_py())
    metrics = lake.table("t").optimize.compact(target_size=5 * size)
    assert 3 <= metrics["numFilesAdded"] <= 6
    assert metrics["numFilesRemoved"] in (19, 20)  # sizes differ a little: one may be alone in its bin, and stays
    assert numbers(lake) == list(range(20_000))
    assert lake.table("t").files("n = 17").num_rows == 1


def test_large_files_and_lonely_ones_stay(lake: Lake) -> None:
    lake.write("t", pa.table({"n": range(1000)}))
    large = lake.table("t").files()["path"].to_pylist()
    for n in (2000, 2001):
        lake.write("t", pa.table({"n": [n]}))
    size = int(lake.table("t").files()["size"][0].as_py())
    lake.table("t").optimize.compact(target_size=size)
    assert large[0] in lake.table("t").files()["path"].to_pylist()
    assert lake.table("t").files().num_rows == 2


def test_partitions_stay_apart(lake: Lake, days: pa.Table) -> None:
    for row in range(6):
        lake.write("t", days.slice(row, 1), partition_by="day")
    metrics = lake.table("t").optimize.compact()
    assert (metrics["numFilesRemoved"], metrics["numFilesAdded"], metrics["partitionsOptimized"]) == (4, 2, 2)
    assert lake.sql("SELECT day, n FROM t ORDER BY n").fetchall() == [*zip(*days.to_pydict().values(), strict=True)]
    assert lake.table("t").files("day = 'mon'").num_rows == 1
    assert lake.mirror.verify("t")


def test_some_partitions_only(lake: Lake, days: pa.Table) -> None:
    for row in range(6):
        lake.write("t", days.slice(row, 1), partition_by="day")
    assert lake.table("t").optimize.compact(partition_filters=[("day", "=", "mon")])["numFilesRemoved"] == 2
    assert lake.sql("OPTIMIZE t WHERE day IN ('tue', 'wed')").fetchall() == [(1, 2, 1, 3)]
    with pytest.raises(SchemaMismatchError, match=r"partition columns \(day\)"):
        lake.sql("OPTIMIZE t WHERE n > 1")
    with pytest.raises(SchemaMismatchError, match="'like' is unknown"):
        lake.table("t").optimize.compact(partition_filters=[("day", "like", "m%")])


def test_z_order_lets_each_column_skip_files(lake: Lake) -> None:
    rows = pa.table({"x": [i % 100 for i in range(10_000)], "y": [i // 100 for i in range(10_000)], "text": ["t" * 50] * 10_000})
    lake.write("t", rows)
    lake.table("t").optimize.z_order(["x", "y"], target_size=lake.table("t").detail()["size_in_bytes"] // 16)
    table = lake.table("t")
    files = table.files().num_rows
    if files > 4:  # how small DuckDB's files can get differs
        assert table.files("x = 1").num_rows <= files * 0.75
        assert table.files("y = 1").num_rows <= files * 0.75
    assert lake.sql("SELECT count(*), sum(x), sum(y) FROM t").fetchall() == [(10_000, 495_000, 495_000)]
    assert table.history(1)[0]["operation_parameters"]["zOrderBy"] == '["x", "y"]'


def test_z_order_within_partitions(lake: Lake, log: Log) -> None:
    days = pa.table({"day": ["a b", "a b", None, None], "n": [2, 1, 4, 3], "s": [{"v": 1}] * 4})
    lake.write("t", days, partition_by="day")
    lake.write("t", days, partition_by="day")
    lake.sql("OPTIMIZE t ZORDER BY (n, s.v)")
    assert lake.sql("SELECT day, list(n ORDER BY n) FROM t GROUP BY ALL ORDER BY 1").fetchall() == [
        ("a b", [1, 1, 2, 2]), (None, [3, 3, 4, 4]),
    ]  # fmt: skip
    assert lake.table("t").files("day = 'a b'").num_rows == 1
    assert lake.mirror.verify("t")


@pytest.mark.parametrize(
    ("statement", "error", "says"),
    [
        ("OPTIMIZE nothing", TableNotFoundError, "'nothing'"),
        ("OPTIMIZE t ZORDER BY (nothing)", SchemaMismatchError, "no column 'nothing'"),
        ("OPTIMIZE t ZORDER (n)", QueryError, "expected BY"),
        ("OPTIMIZE t WHERE", QueryError, "expected an expression, found the end"),
        ("OPTIMIZE t FOR EVER", QueryError, "expected the end"),
    ],
)
def test_what_cannot_be_optimized(small: Lake, statement: str, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        small.sql(statement)
    assert small.table("t").version() == 9


def test_in_a_transaction(small: Lake) -> None:
    with small.begin() as tx:
        tx.sql("OPTIMIZE t")
        tx.sql("DELETE FROM t WHERE n = 3")
        assert tx.sql("SELECT count(*) FROM t").fetchall() == [(9,)]
    assert numbers(small) == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    assert small.mirror.verify("t")


def test_an_append_and_a_delete_of_other_files_pass_a_compaction(small: Lake) -> None:
    append, delete = small.begin(), small.begin()
    append.sql("INSERT INTO t VALUES (10, 'new')")
    delete.sql("DELETE FROM t WHERE n = 100")  # reads everything by its condition, finds nothing
    small.write("t", pa.table({"n": [11], "g": ["x"]}))
    small.sql("OPTIMIZE t")
    append.commit()
    delete.commit()
    assert numbers(small) == list(range(12))


def test_a_delete_that_read_a_compacted_file_and_found_nothing_in_it_passes(lake: Lake) -> None:
    for n in range(3):
        lake.write("t", pa.table({"n": [n, n + 10]}))
    lake.write("t", pa.table({"n": range(100, 3000)}))
    size = max(lake.table("t").files()["size"].to_pylist())
    delete = lake.begin()
    delete.sql("DELETE FROM t WHERE n = 5 OR n = 150")  # 5 lies within the bounds of the small files, and in none of them
    lake.table("t").optimize.compact(target_size=size)
    delete.commit()
    assert lake.sql("SELECT count(*) FROM t").fetchall() == [(2905,)]


def test_a_delete_of_a_compacted_row_is_a_conflict(small: Lake) -> None:
    delete = small.begin()
    delete.sql("DELETE FROM t WHERE n = 3")
    small.sql("OPTIMIZE t")
    with pytest.raises(CommitConflictError, match="version 10 removed files that this commit removes"):
        delete.commit()
    assert numbers(small) == list(range(10))


@pytest.mark.parametrize(
    ("meanwhile", "removed", "left"),
    [
        ("DELETE FROM t WHERE n = 1", 2, [2, 3, 4, 5, 6]),  # of the one partition's files
        ("INSERT INTO t VALUES ('mon', 7)", 4, [1, 2, 3, 4, 5, 6, 7]),
        ("ALTER TABLE t SET TBLPROPERTIES ('owner' = 'me')", 4, [1, 2, 3, 4, 5, 6]),
    ],
)
def test_a_compaction_leaves_out_what_somebody_took_in_the_meantime(
    lake: Lake, days: pa.Table, monkeypatch: pytest.MonkeyPatch, meanwhile: str, removed: int, left: list[int]
) -> None:
    configuration = {"delta.isolationLevel": "Serializable"}
    lake.create_table("t", days.schema, partition_by="day", configuration=configuration)
    for row in range(6):
        lake.write("t", days.slice(row, 1))
    commit = type(lake).commit

    def first_somebody_else(self: Lake, *args: Any) -> Any:
        monkeypatch.setattr(type(lake), "commit", commit)
        lake.sql(meanwhile)
        return commit(self, *args)

    monkeypatch.setattr(type(lake), "commit", first_somebody_else)
    metrics = lake.table("t").optimize.compact()
    assert metrics["numFilesRemoved"] == removed
    assert numbers(lake) == left
    known = {p.split("/")[-1] for p in lake.sql("SELECT path FROM dl_add_files").to_arrow_table()["path"].to_pylist()}
    place = Path(lake.table("t").detail()["location"])
    assert {p.name for p in place.rglob("*.parquet") if "_delta_log" not in p.parts} == known  # what was written in vain is gone


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    writes=st.lists(
        st.lists(st.tuples(st.integers(0, 3) | st.none(), st.integers(-5, 5) | st.none()), max_size=6), min_size=1, max_size=6
    ),
    how=st.sampled_from(["OPTIMIZE t", "OPTIMIZE t ZORDER BY (n)", "OPTIMIZE t WHERE p = 1", "OPTIMIZE t ZORDER BY (n, m)"]),
)
def test_rows_are_what_they_were(tmp_path_factory: Any, writes: list[list[tuple[int | None, int | None]]], how: str) -> None:
    with deltaduck.connect(tmp_path_factory.mktemp("o") / "lake.duckdb") as lake:
        lake.create_table("t", {"p": "INT", "n": "INT", "m": "INT"}, partition_by="p")
        for rows in writes:
            columns = {"p": [p for p, _ in rows], "n": [n for _, n in rows], "m": [n for _, n in rows]}
            lake.write("t", pa.table({k: pa.array(v, pa.int32()) for k, v in columns.items()}))
        before = lake.sql("FROM t ORDER BY ALL").fetchall()
        lake.sql(how)
        assert lake.sql("FROM t ORDER BY ALL").fetchall() == before
        assert lake.table("t").files().num_rows <= sum(map(len, writes))
        assert lake.mirror.verify("t")


def test_options_that_mean_something_elsewhere_are_not_ignored(small: Lake) -> None:
    small.table("t").optimize.compact(max_concurrent_tasks=3)
    with pytest.raises(DeltaduckError, match="writer_properties"):
        small.table("t").optimize.compact(writer_properties=WriterProperties(data_page_size_limit=1))
    with pytest.raises(TypeError, match="surprise"):
        small.table("t").optimize.compact(surprise=1)  # type: ignore[call-arg]


def test_hundreds_of_tiny_files_keep_the_order_of_their_rows(lake: Lake) -> None:
    """They are read by an engine made for it, a run of them by each thread: the rows stand as they came, in every partition, also
    where some rows of their files were deleted."""
    with lake.begin() as tx:
        for n in range(240):
            tx.write("t", pa.table({"p": [n % 2, n % 2], "n": [2 * n, 2 * n + 1]}), partition_by=["p"])
    lake.sql("ALTER TABLE t SET TBLPROPERTIES ('delta.enableDeletionVectors' = 'true')")
    lake.sql("DELETE FROM t WHERE n = 41")
    metrics = lake.table("t").optimize.compact()
    assert (metrics["numFilesRemoved"], metrics["numFilesAdded"]) == (240, 2)
    even, odd = ([(n,) for n in range(480) if n // 2 % 2 == p and n // 2 != 20] for p in (0, 1))
    assert lake.sql("SELECT n FROM t WHERE p = 0").fetchall() == [*even, (40,)]  # whose file came again with a deletion vector
    assert lake.sql("SELECT n FROM t WHERE p = 1").fetchall() == odd


# --- in several commits


def parted(lake: Lake) -> None:
    """Partitions 0 to 4, of three files each; n tells all rows apart."""
    for n in range(15):
        lake.write("t", pa.table({"p": [n % 5], "n": [n]}), partition_by="p")


def files_on_disk(lake: Lake) -> set[str]:
    place = Path(lake.table("t").detail()["location"])
    return {p.name for p in place.rglob("*.parquet") if "_delta_log" not in p.parts}


def files_in_log(lake: Lake) -> set[str]:
    return {p.split("/")[-1] for p in lake.sql("SELECT path FROM dl_add_files").to_arrow_table()["path"].to_pylist()}


@pytest.mark.parametrize("interval", [0, dt.timedelta(0), None, 3600])
def test_it_commits_as_often_as_it_is_told(lake: Lake, interval: int | dt.timedelta | None) -> None:
    parted(lake)
    metrics = lake.table("t").optimize.compact(min_commit_interval=interval)
    assert lake.table("t").version() == 14 + (1 if interval in (None, 3600) else 5)
    assert (metrics["numFilesRemoved"], metrics["numFilesAdded"], metrics["partitionsOptimized"]) == (15, 5, 5)  # of all commits
    assert (metrics["totalConsideredFiles"], json.loads(metrics["filesRemoved"])["totalFiles"]) == (15, 15)
    lake.table("t").optimize.z_order(["n"], min_commit_interval=interval)
    assert lake.table("t").version() == 14 + 2 * (1 if interval in (None, 3600) else 5)
    assert numbers(lake) == list(range(15))
    assert lake.mirror.verify("t")
    with pytest.raises(SchemaMismatchError, match="number of seconds"):
        lake.table("t").optimize.compact(min_commit_interval=-1)


@pytest.mark.parametrize("bound", [{"BATCH_FILES": 6}, {"BATCH_SIZE": 1}])
def test_much_work_is_committed_as_it_goes(lake: Lake, monkeypatch: pytest.MonkeyPatch, bound: dict[str, int]) -> None:
    parted(lake)
    size = int(lake.table("t").files()["size"][0].as_py())
    for name, value in bound.items():
        monkeypatch.setattr(optimize, name, value)
    lake.table("t").optimize.compact(target_size=2 * size)  # the first two files of each partition, and one stays
    assert lake.table("t").version() > 14
    assert lake.table("t").optimize.compact()["numFilesRemoved"] == 10
    assert lake.table("t").version() >= 16
    assert numbers(lake) == list(range(15))
    with lake.begin() as tx:  # which is one commit, whatever is done in it
        for _ in range(2):
            tx.sql("INSERT INTO t SELECT range % 5, 15 + range FROM range(5)")
        tx.sql("OPTIMIZE t")
    assert len(tx.committed) == 1
    assert lake.table("t").files().num_rows == 5


KILLED = """
import os, signal, sys
import deltaduck
from deltaduck import parquet
from deltaduck.operations import regroup

write, left = parquet.write_files, int(sys.argv[3])

def write_files(*args):
    global left
    written = write(*args)
    if (left := left - 1) < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return written

regroup.parquet.write_files = write_files
deltaduck.connect(sys.argv[1], storage=sys.argv[2]).table("t").optimize.compact(min_commit_interval=0)
"""


def test_what_was_committed_stays_when_it_is_killed(kind: str, place: Callable[[str, Path], str], tmp_path: Path) -> None:
    catalog, storage = place(kind, tmp_path), tmp_path / "data"
    with deltaduck.connect(catalog, storage=storage) as lake:
        parted(lake)
    command = [sys.executable, "-c", KILLED, catalog, str(storage), "3"]
    died = subprocess.run(command, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}, check=False)
    assert died.returncode == -signal.SIGKILL
    with deltaduck.connect(catalog, storage=storage) as lake:
        assert lake.table("t").version() == 14 + 3
        assert lake.table("t").files().num_rows == 3 + 2 * 3
        assert len(files_on_disk(lake) - files_in_log(lake)) == 1  # of the group that was under way; VACUUM FULL takes it
        metrics = lake.table("t").optimize.compact()
        assert (metrics["numFilesRemoved"], metrics["numFilesAdded"]) == (6, 2)
        assert numbers(lake) == list(range(15))
        lake.mirror.reconcile()
        assert lake.mirror.verify("t")


def test_what_was_committed_stays_when_a_file_cannot_be_read(lake: Lake) -> None:
    parted(lake)
    lost = lake.table("t").files("n = 14")["path"][0].as_py()
    place = Path(lake.table("t").detail()["location"])
    kept = (place / lost).read_bytes()
    (place / lost).unlink()
    with pytest.raises(LogCorruptError, match="is missing"):
        lake.table("t").optimize.compact(min_commit_interval=0)
    assert lake.table("t").version() == 14 + 4
    assert files_on_disk(lake) == files_in_log(lake) - {Path(lost).name}
    (place / lost).write_bytes(kept)
    assert lake.table("t").optimize.compact()["numFilesRemoved"] == 3
    assert numbers(lake) == list(range(15))


def test_others_write_between_its_commits(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """An append each time; a delete of a row that it has moved, and of one that it will; columns that come meanwhile."""
    parted(lake)
    commit = type(lake).commit
    meanwhile = [
        "INSERT INTO t (p, n) VALUES (0, 100)", "DELETE FROM t WHERE n = 0", "DELETE FROM t WHERE n = 4",
        "ALTER TABLE t ADD COLUMN more INTEGER", "INSERT INTO t VALUES (1, 101, 5)", "INSERT INTO t VALUES (9, 102, 6)",
    ]  # fmt: skip

    def first_somebody_else(self: Lake, *args: Any) -> Any:
        if meanwhile:
            with monkeypatch.context() as patched:
                patched.setattr(type(lake), "commit", commit)
                lake.sql(meanwhile.pop(0))
        return commit(self, *args)

    monkeypatch.setattr(type(lake), "commit", first_somebody_else)
    lake.table("t").optimize.compact(min_commit_interval=0)
    assert not meanwhile
    assert numbers(lake) == [*(n for n in range(15) if n not in (0, 4)), 100, 101, 102]
    assert files_on_disk(lake) == files_in_log(lake)
    lake.table("t").optimize.compact()
    assert lake.table("t").files().num_rows == 6
    assert lake.mirror.verify("t")
