"""Putting many small files together."""

from __future__ import annotations

import shutil
import time

import duckdb
from deltalake import DeltaTable, convert_to_deltalake

import deltaduck

FILES, ROWS = 10_000, 20


def test_optimize_of_many_small_files(board, tmp_path):
    """The same 10,000 files, converted in place by each side, become one."""
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    with duckdb.connect() as con:
        source = (
            f"SELECT range AS id, 'text ' || range AS name, range / 3 AS value, range // {ROWS} AS p FROM range({FILES * ROWS})"
        )
        con.execute(f"COPY ({source}) TO '{tmp_path / 'parts'}' (FORMAT parquet, PARTITION_BY (p), FILENAME_PATTERN '{{uuid}}')")
    for place in (ours, theirs):
        place.mkdir()
    for file in (tmp_path / "parts").rglob("*.parquet"):
        shutil.copy(file, ours)
        shutil.move(file, theirs)
    convert_to_deltalake(str(theirs))
    seconds = {}
    with deltaduck.connect(tmp_path / "lake.duckdb") as lake:
        table = lake.convert(ours, "t")
        start = time.perf_counter()
        metrics = table.optimize.compact()
        seconds["ours"] = time.perf_counter() - start
        assert (metrics["numFilesRemoved"], metrics["numFilesAdded"]) == (FILES, 1)
        assert lake.sql("SELECT count(*), sum(id) FROM t").fetchall() == [(FILES * ROWS, sum(range(FILES * ROWS)))]
    start = time.perf_counter()
    assert DeltaTable(str(theirs)).optimize.compact()["numFilesRemoved"] == FILES
    seconds["delta-rs"] = time.perf_counter() - start
    what = f"OPTIMIZE of {FILES:,} small files"
    board.faster(what, seconds["ours"], {"delta-rs": seconds["delta-rs"]})
    board.check(what)
