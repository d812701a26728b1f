"""A whole catalog moves into another database, or does not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

import deltaduck
from deltaduck import CatalogError, Lake
from deltaduck.catalog import base
from deltaduck.catalog.sqlite import SQLiteCatalog

KINDS = ["duckdb", "sqlite", "postgres"]
Place = Callable[[str, Path], str]


def fill(target: str, data: Path) -> str:
    """A lake with a past: partitions, deletes, text that is hard to quote, a dropped table, a transaction over two tables."""
    with deltaduck.connect(target, storage=data) as lake:
        rows = {"day": ["mon", "tue", None], "x": [1.5, None, float("inf")], "s": ['é\n"', "", "a,b\\\t"]}
        lake.write("days", pa.table(rows), partition_by="day", commit_metadata='two\nlines, "quoted"\\')
        with lake.begin() as tx:
            tx.write("days", pa.table({**rows, "s": ["", None, "ü"]}))
            tx.create_table("empty", {"n": "BIGINT"}, configuration={"delta.appendOnly": "false"}, description="none yet")
        lake.sql("DELETE FROM days WHERE day = 'mon' AND s = ''")
        lake.write("gone", [{"a": 1}], app_transaction=("loader", 3))
        lake.drop_table("gone")
    return target


@pytest.fixture(params=KINDS)
def source(request: pytest.FixtureRequest, tmp_path: Path, place: Place) -> str:
    (tmp_path / "old").mkdir()
    return fill(place(request.param, tmp_path / "old"), tmp_path / "data")


@pytest.fixture(params=KINDS)
def target(request: pytest.FixtureRequest, tmp_path: Path, place: Place) -> str:
    (tmp_path / "new").mkdir()
    return place(request.param, tmp_path / "new")


def everything(lake: Lake) -> dict[str, Any]:
    """What a lake says of itself and its rows, at every version."""
    days = lake.table("days")
    return {
        "tables": list(lake.tables()),
        "rows": [lake.sql(f"FROM days AT (VERSION => {v}) ORDER BY ALL").fetchall() for v in range(days.version() + 1)],
        "history": list(days.history()),
        "pruned": sorted(days.files("day = 'tue' AND x IS NULL")["path"].to_pylist()),
        "detail": [lake.table(name).detail() for name in ("days", "empty")],
        "log": sorted(lake.catalog.fetch("SELECT table_id, version, action_order, line FROM dl_log_lines")),
    }


def test_everything_is_there_and_goes_on(source: str, target: str) -> None:
    with deltaduck.connect(source) as lake:
        before = everything(lake)
    copied = deltaduck.migrate(source, target)
    assert {r["table"]: r["rows"] for r in copied}["dl_table_versions"] == 5
    with deltaduck.connect(target) as lake:
        assert everything(lake) == before
        for table in ("days", "empty"):
            assert lake.mirror.verify(table), str(lake.mirror.verify(table))
        lake.write("days", pa.table({"day": ["wed"], "x": [0.5], "s": ["new"]}))
        lake.write("another", [{"n": 1}])  # below the same storage
        assert lake.table("days").version() == 3
        assert lake.mirror.verify("days")
    with deltaduck.connect(source) as lake:  # as it was
        assert everything(lake) == before


def test_there_and_back_is_the_same(target: str, tmp_path: Path) -> None:
    """Checksums are of the content: no database changes them, nor does the way there."""
    source = fill(str(tmp_path / "old.duckdb"), tmp_path / "data")
    there = deltaduck.migrate(source, target)
    back = deltaduck.migrate(target, tmp_path / "back.duckdb")
    assert list(there) == list(back)


def test_rows_are_shown_to_any_duckdb_client(tmp_path: Path, place: Place) -> None:
    old, new = place("sqlite", tmp_path), tmp_path / "new.duckdb"
    with deltaduck.connect(old) as lake:
        lake.write("t", [{"n": 1}])
        lake.write("t", [{"n": 2}])
    deltaduck.migrate(old, new)
    with duckdb.connect(new, read_only=True) as client:
        assert client.execute("SELECT n FROM t ORDER BY n").fetchall() == [(1,), (2,)]
        assert client.execute("FROM t_at(0)").fetchall() == [(1,)]


def test_a_view_that_would_show_deleted_rows_shows_none(tmp_path: Path, place: Place) -> None:
    old, new = place("sqlite", tmp_path), tmp_path / "new.duckdb"
    with deltaduck.connect(old) as lake:
        lake.write("t", [{"n": 1}, {"n": 2}], configuration={"delta.enableDeletionVectors": "true"})
        lake.sql("DELETE FROM t WHERE n = 1")
        lake.sql("ALTER TABLE t SET TBLPROPERTIES ('delta.enableDeletionVectors' = 'false')")
    deltaduck.migrate(old, new)
    with duckdb.connect(new, read_only=True) as client:
        for rows in ("t", "t_at(1)"):
            with pytest.raises(duckdb.Error, match=r"'t' can be read by deltaduck, not by a view: .* deletion vectors"):
                client.execute(f"FROM {rows}").fetchall()


def test_a_target_that_holds_something_is_refused_untouched(target: str, tmp_path: Path) -> None:
    with deltaduck.connect(tmp_path / "old.duckdb") as lake:
        lake.write("t", [{"n": 1}])
    with deltaduck.connect(target, storage=tmp_path / "other") as lake:
        lake.write("mine", [{"n": 7}])
    with pytest.raises(CatalogError, match="holds a lake already: give a new file, or another schema"):
        deltaduck.migrate(tmp_path / "old.duckdb", target)
    with deltaduck.connect(target) as lake:
        assert [t["name"] for t in lake.tables()] == ["mine"]


def test_a_foreign_database_is_refused_untouched(tmp_path: Path) -> None:
    deltaduck.connect(tmp_path / "old.duckdb").close()
    with duckdb.connect(tmp_path / "theirs.duckdb") as con:
        con.execute("CREATE TABLE theirs AS SELECT 1 AS x")
    with pytest.raises(CatalogError, match="holds other tables"):
        deltaduck.migrate(tmp_path / "old.duckdb", tmp_path / "theirs.duckdb")
    with duckdb.connect(tmp_path / "theirs.duckdb") as con:
        assert con.execute("SELECT table_name FROM duckdb_tables()").fetchall() == [("theirs",)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_source_that_is_no_lake_is_not_made_one(kind: str, tmp_path: Path, place: Place) -> None:
    with pytest.raises(CatalogError, match="no lake"):
        deltaduck.migrate(place(kind, tmp_path), tmp_path / "new.sqlite")
    assert list(tmp_path.iterdir()) == []
    if kind == "postgres":
        with deltaduck.connect(place(kind, tmp_path / "other"), storage=tmp_path) as lake:
            query = "SELECT 1 FROM pg_namespace WHERE nspname = :name"
            assert not lake.catalog.fetch(query, {"name": place(kind, tmp_path).split("?")[0].rsplit("/", 1)[1]})


def test_a_copy_that_differs_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = fill(str(tmp_path / "old.duckdb"), tmp_path / "data")
    ingest = SQLiteCatalog.ingest

    def loses_a_row(self: SQLiteCatalog, table: str, rows: pa.Table) -> None:
        ingest(self, table, rows.slice(1) if table == "dl_remove_files" else rows)

    monkeypatch.setattr(SQLiteCatalog, "ingest", loses_a_row)
    with pytest.raises(CatalogError, match=r"dl_remove_files is not the same.*0 rows.*not 1"):
        deltaduck.migrate(source, tmp_path / "new.sqlite")
    assert not (tmp_path / "new.sqlite").exists()


def test_rows_are_copied_in_parts(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never more than BATCH_ROWS in memory."""
    whole = deltaduck.migrate(source, tmp_path / "whole.sqlite")
    seen: list[tuple[str, int, int]] = []
    for module in ("duckdb", "sqlite", "postgres"):
        monkeypatch.setattr(f"deltaduck.catalog.{module}.BATCH_ROWS", 2)
    parts = deltaduck.migrate(source, tmp_path / "parts.sqlite", progress=lambda *step: seen.append(step))
    assert list(parts) == list(whole)
    assert base.BATCH_ROWS > 2
    steps = [done for _, done, _ in seen]
    assert max(b - a for a, b in zip([0, *steps], steps)) <= 2
    assert seen[-1][1] == seen[-1][2]


MIGRATION = """
import sys, deltaduck
def progress(what, done, total):
    if what.startswith(sys.argv[3]):
        print(what, flush=True)
        sys.stdin.readline()  # until somebody kills us
deltaduck.migrate(sys.argv[1], sys.argv[2], progress=progress)
"""


@pytest.mark.parametrize("moment", ["copying dl_add_files", "verifying dl_skip"])
def test_killed_on_the_way_it_leaves_no_lake_and_can_be_done_again(target: str, tmp_path: Path, moment: str) -> None:
    source = fill(str(tmp_path / "old.duckdb"), tmp_path / "data")
    command = [sys.executable, "-c", MIGRATION, source, target, moment]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(moment)
        os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(CatalogError, match="holds no lake"):
        deltaduck.migrate(target, ":memory:")
    deltaduck.migrate(source, target)
    with deltaduck.connect(target) as lake:
        assert lake.table("days").version() == 2
