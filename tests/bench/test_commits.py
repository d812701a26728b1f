"""Many small commits, and asking what the newest one is."""

from __future__ import annotations

import time

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

import deltaduck

APPENDS, TURN = 200, 20


def row(i: int) -> pa.Table:
    return pa.table({"id": [i], "name": [f"event {i}"], "value": [i * 1.5]})


def test_single_row_appends(board, tmp_path, peers):
    """Durable and mirrored, one row each: turns of twenty, so that all sides see the same machine."""
    what = "single-row appends"
    lake = deltaduck.connect(tmp_path / "lake.duckdb")
    lake.write("events", row(-1))
    for name in ("by_path", "kept_open"):
        write_deltalake(tmp_path / name, row(-1))
    kept_open = DeltaTable(tmp_path / "kept_open")
    for name, inline in (("in_files", False), ("inlined", True)):
        peers("ducklake_table", name=name, root=str(tmp_path), inline=inline)
    appends = {
        "ours": lambda rows: lake.write("events", rows),
        "by_path": lambda rows: write_deltalake(tmp_path / "by_path", rows, mode="append"),
        "kept_open": lambda rows: write_deltalake(kept_open, rows, mode="append"),
    }
    seconds = dict.fromkeys([*appends, "in_files", "inlined"], 0.0)
    for first in range(0, APPENDS, TURN):
        for name, append in appends.items():
            start = time.perf_counter()
            for i in range(first, first + TURN):
                append(row(i))
            seconds[name] += time.perf_counter() - start
        for name in ("in_files", "inlined"):
            seconds[name] += peers("ducklake_append", name=name, first=first, count=TURN)
    assert lake.mirror.status("events")[0]["pending"] == 0
    assert DeltaTable(lake.table("events").detail()["location"]).version() == APPENDS
    lake.close()
    rate = {name: APPENDS / total for name, total in seconds.items()}
    board.rate(what, rate["ours"], "delta-rs, by path", rate["by_path"], times=5)
    board.rate(what, rate["ours"], "delta-rs, kept open", rate["kept_open"])
    board.rate(what, rate["ours"], "ducklake, files", rate["in_files"], times=2)
    board.rate(what, rate["ours"], "ducklake, inlined", rate["inlined"])
    board.check(what)


@pytest.fixture
def hundred_versions(tmp_path):
    with deltaduck.connect(tmp_path / "lake.duckdb") as lake:
        for i in range(100):
            lake.write("events", row(i))
        yield lake


def test_latest_version(benchmark, board, medians, hundred_versions):
    what = "latest version of a table, by name"
    lake = hundred_versions
    location = lake.table("events").detail()["location"]
    assert benchmark.pedantic(lambda: lake.table("events").version(), rounds=300, warmup_rounds=20) == 99
    theirs = medians(20, rs=lambda: None if DeltaTable(location).version() == 99 else 0.0)
    board.within(what, benchmark.stats.stats.median, "a millisecond", 0.001, at_most=1)
    board.faster(what, benchmark.stats.stats.median, {"delta-rs": theirs["rs"]})
    board.check(what)
