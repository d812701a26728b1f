"""A table of very many files: opening it, planning a point lookup, writing its checkpoint."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from deltalake import DeltaTable

import deltaduck
from deltaduck import skip_index
from deltaduck.mirror.checkpoint import write_checkpoint

COMMITS = 100
ROWS = 1000  # in each file

SCHEMA = {
    "id": "BIGINT", "customer": "BIGINT", "kind": "VARCHAR", "amount": "DECIMAL(12, 2)", "at": "TIMESTAMPTZ",
    "day": "DATE", "score": "DOUBLE", "note": "VARCHAR",
}  # fmt: skip


def file_rows(first: int, count: int) -> str:
    """SQL: the add actions of `count` files, whose data nobody has written, with the statistics they would have."""
    low, high = f"i * {ROWS}", f"(i * {ROWS} + {ROWS - 1})"

    def values(id_: str, customer: str, kind: str, amount: str, second: str, score: str, note: str) -> str:
        return (
            f"json_object('id', {id_}, 'customer', {customer}, 'kind', '{kind}', 'amount', {amount}, "
            f"'at', strftime(TIMESTAMP '2024-01-01' + to_seconds(i * 60 + {second}), '%Y-%m-%dT%H:%M:%S.%gZ'), "
            f"'day', strftime(TIMESTAMP '2024-01-01' + to_seconds(i * 60), '%Y-%m-%d'), "
            f"'score', {score}, 'note', 'note ' || printf('%012d', {note}))"
        )

    lows = values(low, "i * 7919 % 1000", "cancel", "1.25", "0", "i * 104729 % 100000 / 100", low)
    highs = values(high, "90000 + i * 7919 % 1000", "view", "999.5", "59", "1000 + i * 104729 % 100000 / 100", high)
    nulls = "json_object(" + ", ".join(f"'{name}', 0" for name in SCHEMA) + ")"
    return (
        "SELECT 'part-' || md5(i::VARCHAR) || '-' || i || '.parquet' AS path, '{}' AS partition_values, "
        "14000 + i % 1000 AS size, 1700000000000 + i AS modification_time, true AS data_change, "
        f'\'{{"numRecords":{ROWS},"minValues":\' || {lows} || \',"maxValues":\' || {highs} '
        f"|| ',\"nullCount\":' || {nulls} || '}}' AS stats, true AS exact_max FROM range({first}, {first + count}) t(i)"
    )


def build(directory: Path, files: int, *, mirrored: bool) -> None:
    """A lake whose table has so many files, from 100 commits: the log is real, and all data files but one do not exist."""
    directory.mkdir()
    each = files // COMMITS
    with deltaduck.connect(directory / "lake.duckdb") as lake:
        table = lake.create_table("events", SCHEMA, configuration={"delta.checkpointInterval": str(COMMITS)})
        write_one(lake, Path(table.detail()["location"]), wanted(files))
        if not mirrored:  # nobody else will read it
            lake.mirror.publish = lambda done: None
        keep = "path, partition_values, size, modification_time, data_change, stats"
        for first in range(0, files, each):
            with lake.begin() as tx:
                change = tx.change("events")
                assert change is not None
                query = skip_index.values_sql(change.skip, frozenset(), f"({file_rows(first, each)})", keep)
                change.adds.append(lake.con.sql(query).to_arrow_table())
        assert table.files(f"id = {wanted(files)}").num_rows == 1
        if not mirrored:
            lake.catalog.execute("UPDATE dl_mirror_status SET status = 'SUCCESS'")
        assert lake.mirror.status("events")[0]["pending"] == 0


def write_one(lake: deltaduck.Lake, location: Path, id_: int) -> None:
    """The one data file that a point lookup opens."""
    (path,) = lake.con.execute(f"SELECT path FROM ({file_rows(id_ // ROWS, 1)})").fetchone()
    columns = ", ".join(f"CAST({id_ if name == 'id' else 'NULL'} AS {kind}) AS {name}" for name, kind in SCHEMA.items())
    lake.con.execute(f"COPY (SELECT {columns}) TO '{location / path}' (FORMAT parquet)")


def wanted(files: int) -> int:
    """An id in a file in the middle."""
    return files // 2 * ROWS + 123


@pytest.fixture(scope="module")
def hundred_thousand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("files") / "100k"
    build(directory, 100_000, mirrored=True)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def million(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("files") / "1m"
    build(directory, 1_000_000, mirrored=False)
    yield directory
    shutil.rmtree(directory)


def test_cold_open_and_point_plan(board, medians, cold, hundred_thousand, million):
    what = "cold open + point plan, 100,000 files"
    small, large = wanted(100_000), wanted(1_000_000)
    found = medians(
        7,
        ours=lambda: cold("ours", hundred_thousand, small),
        rs=lambda: cold("delta-rs", hundred_thousand, small),
        duck=lambda: cold("duckdb delta", hundred_thousand, small),
        million=lambda: cold("ours", million, large),
    )
    board.faster(what, found["ours"], {"delta-rs": found["rs"], "duckdb delta": found["duck"]}, times=8)
    board.within("the same, 1,000,000 files", found["million"], "ours, 100,000 files", found["ours"], at_most=3)
    board.check(what)
    board.check("the same, 1,000,000 files")


def test_checkpoint(board, medians, hundred_thousand, scratch):
    what = "checkpoint of 100,000 files"
    copy = scratch / "events"
    shutil.copytree(hundred_thousand / "lake.delta" / "events" / "_delta_log", copy / "_delta_log")
    theirs = DeltaTable(copy)
    with deltaduck.connect(hundred_thousand / "lake.duckdb") as lake:
        snapshot = lake.snapshot("events")
        log = Path(snapshot.location, "_delta_log")

        def without_checkpoint(directory: Path) -> None:
            for file in directory.glob("*checkpoint*"):
                file.unlink()

        def ours() -> float:
            without_checkpoint(log)
            start = time.perf_counter()
            assert write_checkpoint(lake.catalog, lake.con, snapshot, int(time.time() * 1000))
            return time.perf_counter() - start

        def delta_rs() -> float:
            without_checkpoint(copy / "_delta_log")
            start = time.perf_counter()
            theirs.create_checkpoint()
            return time.perf_counter() - start

        found = medians(5, ours=ours, rs=delta_rs)
    board.within(what, found["ours"], "delta-rs", found["rs"], at_most=0.5)
    board.check(what)
