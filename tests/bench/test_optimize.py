"""Putting many small files together."""

from __future__ import annotations

import os
import shutil
import statistics
import time
from pathlib import Path

import duckdb
from deltalake import DeltaTable, convert_to_deltalake

import deltaduck

FILES, ROWS, ROUNDS = 10_000, 20, 3


def test_optimize_of_many_small_files(board, tmp_path):
    """The same 10,000 files, converted in place by each side, become one."""
    with duckdb.connect() as con:
        source = (
            f"SELECT range AS id, 'text ' || range AS name, range / 3 AS value, range // {ROWS} AS p FROM range({FILES * ROWS})"
        )
        con.execute(f"COPY ({source}) TO '{tmp_path / 'parts'}' (FORMAT parquet, PARTITION_BY (p), FILENAME_PATTERN '{{uuid}}')")
    found = [one_round(tmp_path / "parts", tmp_path / str(n)) for n in range(ROUNDS)]
    ours, theirs = (statistics.median(side) for side in zip(*found, strict=True))
    what = f"OPTIMIZE of {FILES:,} small files"
    board.faster(what, ours, {"delta-rs": theirs}, times=2)
    board.check(what)


def one_round(parts: Path, place: Path) -> tuple[float, float]:
    """Seconds that we take, and delta-rs."""
    ours, theirs = place / "ours", place / "theirs"
    for copy in (ours, theirs):
        copy.mkdir(parents=True)
        for file in parts.rglob("*.parquet"):
            shutil.copy(file, copy)
    convert_to_deltalake(str(theirs))
    with deltaduck.connect(place / "lake.duckdb") as lake:
        table = lake.convert(ours, "t")
        os.sync()  # 20,000 new files are on their way to the disk
        start = time.perf_counter()
        metrics = table.optimize.compact()
        seconds = time.perf_counter() - start
        assert (metrics["numFilesRemoved"], metrics["numFilesAdded"]) == (FILES, 1)
        assert lake.sql("SELECT count(*), sum(id) FROM t").fetchall() == [(FILES * ROWS, sum(range(FILES * ROWS)))]
    os.sync()
    start = time.perf_counter()
    assert DeltaTable(str(theirs)).optimize.compact()["numFilesRemoved"] == FILES
    return seconds, time.perf_counter() - start
