"""The mirror on a real S3 server: how soon others see a commit, and what a commit costs that is published there."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
import servers
import stores
from deltalake import DeltaTable, write_deltalake

import deltaduck

WRITERS, COMMITS = 8, 40
APPENDS, TURN = 60, 10

CROWD = textwrap.dedent("""
    import json, os, sys, deltaduck
    target, options, writers, commits, mode = sys.argv[1:]
    for me in range(int(writers)):
        if not os.fork():
            with deltaduck.connect(target, storage_options=json.loads(options), mirror=mode) as lake:
                for n in range(int(commits)):
                    lake.write("events", [{"writer": me, "n": n}])
            os._exit(0)
    sys.exit(any([os.wait()[1] for me in range(int(writers))]))
""")


@pytest.fixture(scope="module")
def server() -> Iterator[servers.Postgres]:
    server = servers.Postgres(durable=True).start()
    yield server
    server.remove()


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_lag_behind_eight_writers(board, server, s3: stores.S3, url: str, mode: str):
    """From the commit to the record that it is published; all writers commit to one table as fast as they can."""
    what, target = f"mirror lag on S3, {WRITERS} writers, {mode}, p95", server.uri(f"l{time.time_ns()}")
    with deltaduck.connect(target, storage=url, storage_options=s3.options(), mirror="manual") as lake:
        lake.create_table("events", {"writer": "BIGINT", "n": "BIGINT"})
        lake.mirror.reconcile()
        subprocess.run(
            [sys.executable, "-c", CROWD, target, json.dumps(s3.options()), str(WRITERS), str(COMMITS), mode], check=True
        )
        assert lake.mirror.status()[0]["pending"] == 0
        query = (
            "SELECT s.published_ms - v.commit_ms FROM dl_mirror_status s JOIN dl_table_versions v "
            "ON v.table_id = s.table_id AND v.version = s.version WHERE s.version > 0 ORDER BY 1"
        )
        lags = [ms / 1000 for (ms,) in lake.catalog.fetch(query)]
    assert len(lags) == WRITERS * COMMITS
    board.within(what, lags[len(lags) * 95 // 100], "five seconds", 5, at_most=1)
    board.check(what)


def row(i: int) -> pa.Table:
    return pa.table({"id": [i], "name": [f"event {i}"], "value": [i * 1.5]})


def test_commits_that_are_published_on_s3(board, tmp_path: Path, s3: stores.S3, url: str):
    """One row each, in turns, beside delta-rs on the same server."""
    what, options = "single-row appends, on S3", s3.options()
    lakes = {
        mode: deltaduck.connect(tmp_path / f"{mode}.duckdb", storage=f"{url}/{mode}", storage_options=options, mirror=mode)
        for mode in ("sync", "async")
    }
    for lake in lakes.values():
        lake.write("events", row(-1))
    for name in ("by_path", "kept_open"):
        write_deltalake(f"{url}/{name}", row(-1), storage_options=options)
    kept_open = DeltaTable(f"{url}/kept_open", storage_options=options)
    appends = {
        "sync": lambda rows: lakes["sync"].write("events", rows),
        "async": lambda rows: lakes["async"].write("events", rows),
        "by_path": lambda rows: write_deltalake(f"{url}/by_path", rows, mode="append", storage_options=options),
        "kept_open": lambda rows: write_deltalake(kept_open, rows, mode="append"),
    }
    seconds = dict.fromkeys(appends, 0.0)
    for first in range(0, APPENDS, TURN):
        for name, append in appends.items():
            start = time.perf_counter()
            for i in range(first, first + TURN):
                append(row(i))
            seconds[name] += time.perf_counter() - start
            lakes["async"].mirror.reconcile()
    for lake in lakes.values():
        assert lake.mirror.status("events")[0]["pending"] == 0
        assert DeltaTable(lake.table("events").detail()["location"], storage_options=options).version() == APPENDS
        lake.close()
    rate = {name: APPENDS / total for name, total in seconds.items()}
    for mode in lakes:
        board.rate(f"{what}, {mode}", rate[mode], "delta-rs, by path", rate["by_path"])
        board.rate(f"{what}, {mode}", rate[mode], "delta-rs, kept open", rate["kept_open"])
