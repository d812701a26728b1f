"""What a lake keeps in memory is never older than the catalog: heads of tables, scans of versions, rows to publish."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

import deltaduck
from deltaduck import Lake, TableNotFoundError

ONE = pa.table({"id": [1]})


@pytest.fixture
def two(open_lake: Callable[[], Lake]) -> tuple[Lake, Lake]:
    """Two lakes on one catalog, and a table that both have looked at."""
    a, b = open_lake(), open_lake()
    a.write("t", ONE)
    assert a.table("t").version() == b.table("t").version() == 0
    return a, b


def test_each_sees_what_the_other_commits(two: tuple[Lake, Lake]) -> None:
    a, b = two
    for n in range(6):
        (a, b)[n % 2].write("t", ONE)
        assert a.table("t").version() == b.table("t").version() == n + 1
        assert a.sql("SELECT count(*) FROM t").fetchall() == b.sql("SELECT count(*) FROM t").fetchall() == [(n + 2,)]
    assert a.table("t").history()[0]["read_version"] == 5


def test_a_table_that_one_holds_is_dropped_and_made_anew_by_the_other(two: tuple[Lake, Lake]) -> None:
    a, b = two
    held = a.table("t")
    b.drop_table("t")
    with pytest.raises(TableNotFoundError, match="dropped"):
        held.version()
    with pytest.raises(TableNotFoundError):
        a.table("t")
    b.create_table("t", {"other": "VARCHAR"})
    assert a.table("t").schema().names == ["other"]
    with pytest.raises(TableNotFoundError, match="dropped"):
        held.version()


def test_a_schema_that_the_other_changed_is_the_one_that_is_written(two: tuple[Lake, Lake]) -> None:
    a, b = two
    b.write("t", pa.table({"id": [2], "more": ["x"]}), schema_mode="merge")
    a.write("t", pa.table({"id": [3], "more": ["y"]}))
    assert b.sql("SELECT more FROM t ORDER BY id").fetchall() == [(None,), ("x",), ("y",)]


def test_what_is_rolled_back_was_never_there(two: tuple[Lake, Lake]) -> None:
    a, b = two

    def move_and_fail() -> None:
        with a.catalog.transaction():
            a.catalog.run("advance_table", table_id=1, expected=0, version=7, commit_ms=7)
            raise LookupError(a.catalog.head("t")[3])  # type: ignore[index]

    with pytest.raises(LookupError, match="7"):
        move_and_fail()
    assert a.table("t").version() == b.table("t").version() == 0
    assert a.write("t", ONE) == 1


def test_a_transaction_reads_one_point_though_a_newer_head_is_known(two: tuple[Lake, Lake]) -> None:
    a, b = two
    with a.begin() as tx:
        assert tx.sql("SELECT count(*) FROM t").fetchall() == [(1,)]
        b.write("t", ONE)
        assert b.table("t").version() == 1
        assert tx.sql("SELECT count(*) FROM t").fetchall() == [(1,)]
    assert a.sql("SELECT count(*) FROM t").fetchall() == [(2,)]


def test_another_process_writes_while_the_lake_is_closed_here(open_lake: Callable[[], Lake], tmp_path: Path) -> None:
    lake = open_lake()
    if lake.catalog.home is None:
        pytest.skip("a server's catalog is never closed to others; a file's may be")
    path = next(p for p in tmp_path.iterdir() if p.suffix in (".duckdb", ".sqlite"))
    lake.write("t", ONE)
    assert lake.table("t").version() == 0
    lake.close()
    code = f"import deltaduck; deltaduck.connect({str(path)!r}).write('t', [{{'id': 2}}])"
    subprocess.run([sys.executable, "-c", code], check=True)
    again = open_lake()
    assert again.table("t").version() == 1
    assert again.sql("SELECT count(*) FROM t").fetchall() == [(2,)]


@pytest.mark.skipif(int(duckdb.__version__.split(".")[0]) < 2, reason="DuckDB 1.5 itself imports it for an Arrow answer")
def test_to_open_a_lake_and_plan_a_query_takes_no_pandas(tmp_path: Path) -> None:
    """Which takes longer to import than all of that."""
    with deltaduck.connect(tmp_path / "lake.duckdb") as lake:
        lake.write("t", ONE)
    code = (
        f"import sys, deltaduck; t = deltaduck.connect({str(tmp_path / 'lake.duckdb')!r}).table('t'); "
        "print(t.files('id = 1').num_rows, t.files().num_rows, 'pandas' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert ran.stdout.split() == ["1", "1", "False"]


def test_no_reader_goes_back_in_time_while_others_write(two: tuple[Lake, Lake]) -> None:
    a, b = two
    seen: list[int] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.append(b.table("t").version())

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for n in range(20):
            a.write("t", ONE)
            assert b.table("t").version() == n + 1
    finally:
        done.set()
        reader.join()
    assert seen == sorted(seen)


def test_small_and_large_commits_publish_what_the_catalog_says(lake: Lake, tmp_path: Path) -> None:
    lake.write("t", pa.table({"part": [0], "id": [0]}), partition_by="part")
    lake.write("t", pa.table({"part": range(100), "id": range(100)}), app_transaction=('a"b', 1))
    lake.write("t", pa.table({"part": ["1"], "id": [1]}).cast(pa.schema({"part": pa.int64(), "id": pa.int64()})))
    lake.sql("DELETE FROM t WHERE part = 3")
    assert lake.mirror.verify("t")
