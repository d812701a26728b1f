"""Kill the writer, whenever: what was acknowledged is there, what was not is nowhere, and the mirror catches up."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import deltalake
import pytest

import deltaduck
from deltaduck import Lake

KILLS = 15

# For every line "path start" that it reads, a process is born that writes transactions over two tables, some with a delete,
# and says each number once it is committed. Born by fork, so that fifteen of them need not import everything anew.
WRITERS = """
import os, sys
import deltaduck

def write(path, n):
    lake = deltaduck.connect(path)
    print(os.getpid(), flush=True)
    while True:
        n += 1
        with lake.begin() as tx:
            tx.write("left", [{"n": n, "part": n % 2}])
            tx.write("right", [{"n": n}])
            if n % 5 == 0:
                tx.sql(f"DELETE FROM left WHERE n = {n - 1}")
        print(n, flush=True)

for line in sys.stdin:
    path, start = line.rsplit(" ", 1)
    if not (child := os.fork()):
        write(path, int(start))
    print("killed" if os.waitpid(child, 0)[1] == 9 else "it ended by itself", flush=True)
"""


@pytest.fixture
def writers() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", WRITERS]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.communicate()


def acknowledged(writers: subprocess.Popen[str], path: Path, start: int, commits: int, seconds: float) -> int:
    """Let a writer go on from `start`, kill it a moment after some commits; the last number that it said."""
    assert writers.stdin is not None
    assert writers.stdout is not None
    print(path, start, file=writers.stdin, flush=True)
    pid = int(writers.stdout.readline())
    said = start
    for _ in range(commits):
        said = int(writers.stdout.readline())
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)
    while (line := writers.stdout.readline().strip()).isdigit():
        said = int(line)
    assert line == "killed"
    return said


def expected_left(last: int) -> list[int]:
    return [n for n in range(1, last + 1) if (n + 1) % 5 or n == last]


def check(lake: Lake, said: int) -> int:
    """Every promise, on the reopened lake; the number that is really the last."""
    right = sorted(row[0] for row in lake.sql("SELECT n FROM right").fetchall())
    last = right[-1] if right else 0
    assert last in (said, said + 1)  # one may have been committed but not yet said
    assert right == list(range(1, last + 1))
    left = sorted(row[0] for row in lake.sql("SELECT n FROM left").fetchall())
    assert left == expected_left(last)  # no half of a transaction
    assert lake.table("left").version() == lake.table("right").version() == last
    return last


def test_killed_at_random_moments(tmp_path: Path, writers: subprocess.Popen[str]) -> None:
    path = tmp_path / "lake.duckdb"
    with deltaduck.connect(path) as lake:
        lake.create_table("left", {"n": "BIGINT", "part": "BIGINT"}, configuration={"delta.checkpointInterval": "4"})
        lake.create_table("right", {"n": "BIGINT"})
    chance = random.Random()  # another moment each time; the promises hold at every one
    last = 0
    for _ in range(KILLS):
        said = acknowledged(writers, path, last, chance.choice([0, 1, 2]), chance.uniform(0.0, 0.15))
        with deltaduck.connect(path) as lake:
            last = check(lake, said)
    with deltaduck.connect(path) as lake:
        lake.mirror.reconcile()
        for table in ("left", "right"):
            assert lake.mirror.verify(table), str(lake.mirror.verify(table))
            theirs = deltalake.DeltaTable(lake.table(table).detail()["location"])
            assert theirs.version() == last
            assert theirs.to_pyarrow_table().num_rows == lake.sql(f"SELECT count(*) FROM {table}").fetchall()[0][0]


def test_a_mirror_that_was_cut_short_is_completed(tmp_path: Path) -> None:
    """Killed in between: the commits whose files are missing are published, in order, with the bytes they should have."""
    path = tmp_path / "lake.duckdb"
    with deltaduck.connect(path) as lake:
        for n in range(4):
            lake.write("t", [{"n": n}])
        log = Path(lake.table("t").detail()["location"], "_delta_log")
        wanted = {p.name: p.read_bytes() for p in log.glob("*.json")}
    with deltaduck.connect(path) as lake:
        lake.catalog.execute("UPDATE dl_mirror_status SET status = 'PENDING' WHERE version >= 2")
        (log / f"{2:020d}.json").unlink()
        (log / f"{3:020d}.json").unlink()
        assert lake.mirror.status("t")[0]["published_version"] == 1
        lake.write("t", [{"n": 4}])  # the next commit publishes all three
        assert {p.name: p.read_bytes() for p in log.glob("*.json") if p.name in wanted} == wanted
        assert lake.mirror.verify("t")
        assert deltalake.DeltaTable(log.parent).version() == 4
