"""Many small files: taking them over, and putting them together."""

from __future__ import annotations

import os
import shutil
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
from deltalake import DeltaTable, convert_to_deltalake

import deltaduck

FILES, ROWS, ROUNDS = 10_000, 20, 3


def test_optimize_of_many_small_files(board, tmp_path):
    """The same 10,000 files, converted in place by each side, for information, become one."""
    with duckdb.connect() as con:
        source = (
            f"SELECT range AS id, 'text ' || range AS name, range / 3 AS value, range // {ROWS} AS p FROM range({FILES * ROWS})"
        )
        con.execute(f"COPY ({source}) TO '{tmp_path / 'parts'}' (FORMAT parquet, PARTITION_BY (p), FILENAME_PATTERN '{{uuid}}')")
    found = [one_round(tmp_path / "parts", tmp_path / str(n)) for n in range(ROUNDS)]
    converted, ours, converted_by_rs, theirs = (statistics.median(side) for side in zip(*found, strict=True))
    board.faster(f"CONVERT of {FILES:,} small files", converted, {"delta-rs": converted_by_rs})
    what = f"OPTIMIZE of {FILES:,} small files"
    board.faster(what, ours, {"delta-rs": theirs}, times=2)
    board.check(what)


def one_round(parts: Path, place: Path) -> tuple[float, float, float, float]:
    """Seconds of our CONVERT and OPTIMIZE, and of delta-rs's."""
    ours, theirs = place / "ours", place / "theirs"
    for copy in (ours, theirs):
        copy.mkdir(parents=True)
        for file in parts.rglob("*.parquet"):
            shutil.copy(file, copy)
    with deltaduck.connect(place / "lake.duckdb") as lake:
        table, converted = timed(lambda: lake.convert(ours, "t"))
        metrics, seconds = timed(table.optimize.compact)
        assert (metrics["numFilesRemoved"], metrics["numFilesAdded"]) == (FILES, 1)
        assert lake.sql("SELECT count(*), sum(id) FROM t").fetchall() == [(FILES * ROWS, sum(range(FILES * ROWS)))]
    _, converted_by_rs = timed(lambda: convert_to_deltalake(str(theirs)))
    metrics, seconds_of_rs = timed(lambda: compacted(theirs))
    assert metrics["numFilesRemoved"] == FILES
    return converted, seconds, converted_by_rs, seconds_of_rs


def compacted(place: Path) -> dict[str, Any]:
    """By delta-rs, which opens the table first."""
    return DeltaTable(str(place)).optimize.compact()


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    os.sync()  # thousands of new files are on their way to the disk
    start = time.perf_counter()
    done = work()
    return done, time.perf_counter() - start
