"""Kill the writer, whenever: what was acknowledged is there, what was not is nowhere, and the mirror catches up.

Steps of a commit and of its publication are swept one by one, a part of them in each run of the suite; others are killed at
moments of no choice. DELTADUCK_KILLS=1000 makes a campaign of it: so many kills, over every catalog and both kinds of storage.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import deltalake
import pytest

import deltaduck
from deltaduck import Lake, storage

TESTS = Path(__file__).resolve().parents[1]
COMBINATIONS = [(kind, place) for place in ("disk", "s3") for kind in ("duckdb", "sqlite", "postgres")]
KILLS = int(os.environ.get("DELTADUCK_KILLS", "36")) // len(COMBINATIONS)
Place = Callable[[str, Path], str]


class Writers:
    """A process that gives birth to writers."""

    def __init__(self, **order: Any) -> None:
        self.order = order
        command = [sys.executable, str(TESTS / "killer.py")]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(
        self, start: int, deadly: int, mirror: str, commits: int = 1, seconds: float | None = None
    ) -> tuple[int, int, int]:
        """Let one write from `start` on, and die at a step, or after some seconds; (the last number said, its steps or 0 where it
        died, its exit code)."""
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        order = self.order | {"start": start, "deadly": deadly, "mirror": mirror, "commits": commits}
        print(json.dumps(order), file=stdin, flush=True)
        said, steps, pid = start, 0, 0
        while not (line := stdout.readline()).startswith("ended"):
            assert line, "the process that gives birth has died"
            if line.startswith("steps"):
                steps = int(line.split()[1])
            elif pid:
                said = int(line)
            else:
                pid = int(line)
                if seconds is not None:
                    time.sleep(seconds)
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
        return said, steps, int(line.split()[1])

    def close(self) -> None:
        self.process.communicate()


def expected_left(last: int) -> list[int]:
    return [n for n in range(1, last + 1) if (n + 1) % 5 or n == last]


def check(lake: Lake, said: int, last: int) -> int:
    """Every promise to who reads SQL, on the reopened lake; the number that is really the last."""
    right = sorted(row[0] for row in lake.sql("SELECT n FROM right").fetchall())
    now = right[-1] if right else 0
    assert now in (said, said + 1), "one may have been committed but not yet said"
    assert now >= last
    assert right == list(range(1, now + 1))
    left = sorted(row[0] for row in lake.sql("SELECT n FROM left").fetchall())
    assert left == expected_left(now), "half of a transaction"
    assert lake.table("left").version() == lake.table("right").version() == now
    return now


def check_mirror(lake: Lake, options: dict[str, str] | None) -> None:
    """It converges to the bytes that the catalog gives, and another reader sees the rows."""
    lake.mirror.reconcile()
    for table in ("left", "right"):
        snapshot = lake.snapshot(table)
        lines = lake.catalog.fetch(
            "SELECT version, line FROM dl_log_lines WHERE table_id = :t ORDER BY version, action_order", {"t": snapshot.table_id}
        )
        for version in range(snapshot.version + 1):
            wanted = "".join(line + "\n" for v, line in lines if v == version).encode()
            assert storage.read(snapshot.location, f"_delta_log/{version:020d}.json") == wanted
        assert lake.mirror.verify(table), str(lake.mirror.verify(table))
        theirs = deltalake.DeltaTable(str(snapshot.location), storage_options=options)
        assert theirs.version() == snapshot.version
        ours = sorted(n for (n,) in lake.sql(f"SELECT n FROM {table}").fetchall())
        assert sorted(theirs.to_pyarrow_table()["n"].to_pylist()) == ours


@pytest.fixture(params=COMBINATIONS, ids="-".join)
def scene(request: pytest.FixtureRequest, tmp_path: Path, place: Place) -> dict[str, Any]:
    """Where a lake is: a catalog of every kind, on a disk and on a real S3 server."""
    kind, where = request.param
    options = request.getfixturevalue("s3").options() if where == "s3" else None
    root = request.getfixturevalue("url") if where == "s3" else str(tmp_path / "data")
    scene = {"target": place(kind, tmp_path), "storage": root, "options": options}
    with deltaduck.connect(scene["target"], storage=root, storage_options=options) as lake:
        settings = {"delta.checkpointInterval": "4", "delta.checkpointPolicy": "classic"}
        lake.create_table("left", {"n": "BIGINT", "part": "BIGINT"}, configuration=settings)
        lake.create_table("right", {"n": "BIGINT"}, configuration={"delta.checkpointInterval": "3"})
    return scene


def test_killed_at_every_step_and_at_any_moment(scene: dict[str, Any]) -> None:
    chance = random.Random()  # other steps and moments in each run; the promises hold at every one
    writers = Writers(**scene)
    died, last, deadly = 0, 0, -1
    kills = max(KILLS, 1)

    def reopened() -> Lake:
        return deltaduck.connect(scene["target"], storage_options=scene["options"], mirror="manual")

    try:
        said, steps, code = writers(last, -1, "sync", commits=5)
        assert (said, code) == (5, 0)
        last = said
        stride = -(-steps // (5 * max(kills * 2 // 3, 1)))  # of a commit, rounded up: the first sweep reaches its end
        deadly = offset = chance.randrange(stride)
        while died < kills:
            if died < kills * 2 // 3:
                said, steps, code = writers(last, deadly, chance.choice(["sync", "sync", "async"]))
                if code == 0:  # it has no such step: from the start again, beside those of the sweep before
                    deadly = offset = (offset + 1) % stride
                else:
                    deadly += stride
            else:
                said, steps, code = writers(last, -1, "sync", commits=50, seconds=chance.uniform(0, 0.3))
            assert code in (0, -signal.SIGKILL), "a writer failed by itself"
            died += code != 0
            with reopened() as lake:
                last = check(lake, said, last)
                if code and died % 8 == 0:
                    check_mirror(lake, scene["options"])
        with reopened() as lake:
            check_mirror(lake, scene["options"])
    finally:
        writers.close()


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
