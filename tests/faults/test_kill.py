"""Kill the writer, whenever: what was acknowledged is there, what was not is nowhere, and the mirror catches up.

A commit and its publication are swept point by point, right before and right after each of their steps, some points in each run
of the suite; other writers are killed at moments of no choice. DELTADUCK_KILLS says how many die in all; with ``all``, one at
every point of every sweep, over every catalog and both kinds of storage:

    DELTADUCK_KILLS=all pytest -s tests/faults/test_kill.py
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
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import deltalake
import pyarrow as pa
import pytest

import deltaduck
from deltaduck import Lake, storage

TESTS = Path(__file__).resolve().parents[1]
COMBINATIONS = [(kind, place) for place in ("disk", "s3") for kind in ("duckdb", "sqlite", "postgres")]
WHOLE = os.environ.get("DELTADUCK_KILLS") == "all"
KILLS = 30 if WHOLE else max(int(os.environ.get("DELTADUCK_KILLS", "36")) // len(COMBINATIONS), 3)  # of one combination


@dataclass(frozen=True)
class Shape:
    """What the tables of a lake are like, and what each commit does beside adding a file to both."""

    left: dict[str, str]
    right: dict[str, str]
    delete_every: int = 0  # commits that also delete a row of `left`
    compacts: bool = False


PLAIN = Shape({"delta.checkpointInterval": "100000"}, {"delta.checkpointInterval": "100000"})
RICH = Shape(  # a commit hides a row by a deletion vector, writes checkpoints of both kinds with checksums, compacts the log
    {"delta.checkpointInterval": "1", "delta.enableDeletionVectors": "true"},
    {"delta.checkpointInterval": "1", "delta.checkpointPolicy": "v2"},
    delete_every=1,
    compacts=True,
)
MIXED = Shape({"delta.checkpointInterval": "4"}, {"delta.checkpointInterval": "3"}, delete_every=5)  # a file written anew
SWEEPS = [("plain", PLAIN, "sync"), ("rich", RICH, "sync"), ("plain", PLAIN, "async"), ("rich", RICH, "async")]


@dataclass(frozen=True)
class Death:
    """How a writer ended: the last number that it said, the points that it passed if it lived, its exit code."""

    said: int
    points: int | None
    code: int


class Writers:
    """A process that gives birth to writers."""

    def __init__(self) -> None:
        command = [sys.executable, str(TESTS / "killer.py")]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, order: dict[str, Any], seconds: float | None = None) -> Death:
        """Let one write; it dies at its `deadly` point, or after some seconds."""
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        print(json.dumps(order), file=stdin, flush=True)
        said, points, pid = order["start"], None, 0
        while not (line := stdout.readline()).startswith("ended"):
            assert line, "the process that gives birth has died"
            if line.startswith("points"):
                points = int(line.split()[1])
            elif pid:
                said = int(line)
            else:
                pid = int(line)
                if seconds is not None:
                    time.sleep(seconds)
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
        code = int(line.split()[1])
        assert code in (0, -signal.SIGKILL), "a writer failed by itself"
        assert (points is None) == (code != 0)
        return Death(said, points, code)


@pytest.fixture(scope="module")
def writers() -> Iterator[Writers]:
    writers = Writers()
    yield writers
    writers.process.communicate()


class Scene:
    """A lake that is written to, killed at, looked at and written to again. `last` is the number of its newest commit."""

    def __init__(self, writers: Writers, shape: Shape, target: str, root: str, options: dict[str, str] | None) -> None:
        self._writers, self._shape, self._target, self._options = writers, shape, target, options
        self._order = {"target": target, "storage": root, "options": options}
        self._order |= {"delete_every": shape.delete_every, "compacts": shape.compacts}
        self.last = 0
        with deltaduck.connect(target, storage=root, storage_options=options) as lake:
            lake.create_table("left", {"n": "BIGINT", "part": "BIGINT"}, configuration=shape.left)
            lake.create_table("right", {"n": "BIGINT"}, configuration=shape.right)

    def write(
        self, mode: str, deadly: int = -1, *, commits: int = 1, seconds: float | None = None, settle: bool = False
    ) -> Death:
        """Let a writer go on from the last number, and see that every promise to who reads SQL is kept on the reopened lake.

        settle: publish what it left, and let time pass, so that the next one begins as it did.
        """
        order = self._order | {"start": self.last, "deadly": deadly, "mirror": mode, "commits": commits}
        death = self._writers(order, seconds)
        with self.opened() as lake:
            right = sorted(row[0] for row in lake.sql("SELECT n FROM right").fetchall())
            now = right[-1] if right else 0
            assert now in (death.said, death.said + 1), "one may have been committed but not yet said"
            assert right == list(range(1, now + 1))
            left = sorted(row[0] for row in lake.sql("SELECT n FROM left").fetchall())
            assert left == self._left(now), "half of a transaction"
            assert lake.table("left").version() == lake.table("right").version() == now
            if settle:
                lake.mirror.reconcile()
                lake.catalog.execute("UPDATE dl_mirror_leases SET expires_ms = 0")  # those of the dead end after seconds
        self.last = now
        return death

    def _left(self, now: int) -> list[int]:
        every = self._shape.delete_every
        deleted = {1 - n for n in range(1, now + 1) if every and n % every == 0}
        return sorted({sign * n for n in range(1, now + 1) for sign in (1, -1)} - deleted)

    def opened(self) -> Lake:
        return deltaduck.connect(self._target, storage_options=self._options, mirror="manual")

    def check_mirror(self) -> None:
        """It converges to the bytes that the catalog gives, with all its checkpoints, and another reader sees the rows."""
        with self.opened() as lake:
            lake.mirror.reconcile()
            for table in ("left", "right"):
                snapshot = lake.snapshot(table)
                lines = lake.catalog.fetch(
                    "SELECT version, line FROM dl_log_lines WHERE table_id = :t ORDER BY version, action_order",
                    {"t": snapshot.table_id},
                )
                versions = range(snapshot.version + 1)
                for version in versions:
                    wanted = "".join(line + "\n" for v, line in lines if v == version).encode()
                    assert storage.read(snapshot.location, f"_delta_log/{version:020d}.json") == wanted
                    compacted = storage.read(snapshot.location, f"_delta_log/{version - 1:020d}.{version:020d}.compacted.json")
                    assert all(json.loads(line) for line in (compacted or b"").splitlines())
                verdict = lake.mirror.verify(table, versions)
                assert verdict, str(verdict)
                theirs = deltalake.DeltaTable(str(snapshot.location), storage_options=self._options)
                assert theirs.version() == snapshot.version
                found = pa.table(deltalake.QueryBuilder().register("t", theirs).execute("SELECT n FROM t").read_all())
                assert sorted(found["n"].to_pylist()) == sorted(n for (n,) in lake.sql(f"SELECT n FROM {table}").fetchall())


MakeScene = Callable[[Shape], Scene]


@pytest.fixture(params=COMBINATIONS, ids="-".join)
def make_scene(request: pytest.FixtureRequest, tmp_path: Path, place: Callable[[str, Path], str], writers: Writers) -> MakeScene:
    """Makes lakes: with a catalog of every kind, on a disk and on a real S3 server."""
    kind, where = request.param
    options = request.getfixturevalue("s3").options() if where == "s3" else None
    root = request.getfixturevalue("url") if where == "s3" else str(tmp_path / "data")
    numbers = count()

    def make(shape: Shape) -> Scene:
        n = next(numbers)
        (home := tmp_path / str(n)).mkdir()
        return Scene(writers, shape, place(kind, home), f"{root}/{n}", options)

    return make


def sweep(begin: Callable[[], Scene], mode: str, choose: Callable[[int], Iterable[int]]) -> tuple[int, int]:
    """Kill writers, each in a commit of its own, at points chosen from those that a writer passed who was not killed. (how many
    these were, how many writers died)

    Who does not die must have passed fewer points than that. The choice may be all numbers: it ends where a writer outlives it.
    Nobody else writes, and all is published before each begins, so they take the same steps, and a whole sweep that ends before
    the points that were counted is a failure. Only where a thread publishes may that be: it and the writer meet at other moments
    each time, so there the sweep ends when three in turn have lived.
    """
    scene = begin()
    points, killed, survived = scene.write(mode, settle=True).points, 0, 0
    assert points is not None
    for deadly in choose(points):
        if scene.last > 40:  # a look at all of it takes longer and longer
            scene.check_mirror()
            scene = begin()
        death = scene.write(mode, deadly, settle=True)
        killed += death.code != 0
        survived = 0 if death.code else survived + 1
        if death.points is not None:
            assert death.points <= deadly, f"passed {death.points} points, and did not die at {deadly}"
            assert mode == "async" or not WHOLE or deadly >= points, f"{points} points before, and now {death.points}"
        if survived == (3 if mode == "async" else 1):
            break
    scene.check_mirror()
    return points, killed


def test_killed_at_every_step(make_scene: MakeScene, request: pytest.FixtureRequest) -> None:
    chance = random.Random()  # others in each run; the promises hold at every one

    def choose(points: int) -> Iterable[int]:
        return count() if WHOLE else sorted(chance.sample(range(points), KILLS * 2 // 3))

    for name, shape, mode in SWEEPS if WHOLE else [chance.choice(SWEEPS)]:

        def begin(shape: Shape = shape) -> Scene:
            scene = make_scene(shape)
            scene.write("sync", commits=2, settle=True)
            return scene

        points, killed = sweep(begin, mode, choose)
        print(f"\n{request.node.callspec.id}, {name}, {mode}: {points} points, {killed} writers killed", flush=True)


def test_killed_at_any_moment(make_scene: MakeScene) -> None:
    chance, scene, killed = random.Random(), make_scene(MIXED), 0
    while killed < KILLS - KILLS * 2 // 3:
        killed += scene.write(chance.choice(["sync", "async"]), commits=50, seconds=chance.uniform(0, 0.3)).code != 0
    scene.check_mirror()


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
