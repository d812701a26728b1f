"""Importing long and large logs, beside delta-rs opening the same table once."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
from deltalake import DeltaTable

import deltaduck

COMMITS = 50_000
FILES, LARGE = 1_000_000, 1_000  # files, in so many commits
STATS = '{{"numRecords":1000,"minValues":{{"id":{0}}},"maxValues":{{"id":{1}}},"nullCount":{{"id":0}}}}'
HEAD = [
    {"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}},
    {
        "metaData": {
            "id": "b", "format": {"provider": "parquet", "options": {}}, "partitionColumns": [], "configuration": {},
            "createdTime": 0,
            "schemaString": json.dumps(
                {"type": "struct", "fields": [{"name": "id", "type": "long", "nullable": True, "metadata": {}}]}
            ),
        }
    },
]  # fmt: skip


def write_log(root: Path, commits: int, each: int) -> None:
    """A log of so many commits that add so many files, which nobody has written."""
    log = root / "_delta_log"
    log.mkdir(parents=True)
    for version in range(commits):
        lines = [json.dumps(action) for action in HEAD] if version == 0 else []
        info = {"timestamp": 1_700_000_000_000 + version, "operation": "WRITE", "operationParameters": {"mode": "Append"}}
        lines.append(json.dumps({"commitInfo": info}))
        for n in range(version * each, (version + 1) * each):
            stats = json.dumps(STATS.format(n * 1000, n * 1000 + 999))
            lines.append(
                f'{{"add":{{"path":"part-{n:09d}.parquet","partitionValues":{{}},"size":14000,'
                f'"modificationTime":1700000000000,"dataChange":true,"stats":{stats}}}}}'
            )
        (log / f"{version:020d}.json").write_text("\n".join(lines) + "\n")


@pytest.fixture
def long_log(scratch: Path) -> Path:
    write_log(scratch / "long", COMMITS, 1)
    return scratch / "long"


def test_fifty_thousand_commits_without_a_checkpoint(long_log: Path, scratch: Path, board) -> None:
    start = time.perf_counter()
    with deltaduck.connect(scratch / "lake.duckdb") as lake:
        assert lake.import_table(long_log, "t").files == COMMITS
    ours = time.perf_counter() - start
    start = time.perf_counter()
    table = DeltaTable(long_log)
    theirs = time.perf_counter() - start
    assert table.version() == COMMITS - 1
    board.faster("import of 50,000 commits, delta-rs opens them", ours, {"delta-rs": theirs}, times=1)
    with deltaduck.connect(scratch / "lake.duckdb") as lake:
        lake.table("t").files("id = 1")  # imports and statements are warm

        def plan() -> float:
            begun = time.perf_counter()
            assert lake.table("t").files("id = 25000500").num_rows == 1
            return time.perf_counter() - begun

        planned = sorted(plan() for _ in range(7))[3]
    board.faster("open and plan, 50,000 commits", planned, {"delta-rs": theirs}, times=500)
    board.check("import of 50,000 commits, delta-rs opens them")
    board.check("open and plan, 50,000 commits")


def test_a_million_files(scratch: Path, board) -> None:
    """In a process of its own, for its peak of memory."""
    write_log(scratch / "large", LARGE, FILES // LARGE)
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, __file__, str(scratch / "lake.duckdb"), str(scratch / "large")],
        check=True,
        capture_output=True,
        text=True,
    )
    print(f"1,000,000 files in 1,000 commits: {FILES / (time.perf_counter() - start):,.0f} files/s, {done.stdout.strip()}")
    assert json.loads(done.stdout)["peak_mb"] < 4_000


if __name__ == "__main__":
    start = time.perf_counter()
    with deltaduck.connect(sys.argv[1]) as lake:
        assert lake.import_table(sys.argv[2], "t").files == FILES
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps({"seconds": round(time.perf_counter() - start, 1), "peak_mb": peak}))
