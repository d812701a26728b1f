"""Ratios to the peers, measured in the same run, and the table of them that ends it."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pytest

HERE = Path(__file__).parent
PEERS_PYTHON = os.environ.get("DELTADUCK_PEERS_PYTHON")  # an environment with DuckDB 1.5, its delta and its ducklake extension


@dataclass
class Row:
    what: str
    ours: float
    peer: str
    theirs: float
    ratio: float
    target: str
    verdict: str
    unit: str


@dataclass
class Board:
    """Collects every comparison of the run. The figure in a call is the figure promised: missing it fails the test."""

    rows: list[Row] = field(default_factory=list)

    def faster(self, what: str, ours: float, peers: dict[str, float], *, times: float | None = None) -> None:
        """Seconds of ours, and of each peer. With `times`: we are that many times faster than the best of them."""
        best = min(peers, key=lambda name: peers[name])
        for peer, theirs in peers.items():
            target = times if peer == best else None
            self._add(what, ours, peer, theirs, theirs / ours, target, at_least=True)

    def within(self, what: str, ours: float, peer: str, theirs: float, *, at_most: float | None = None) -> None:
        """Seconds of ours and of a yardstick. With `at_most`: ours take at most that many times theirs."""
        self._add(what, ours, peer, theirs, ours / theirs, at_most, at_least=False)

    def rate(self, what: str, ours: float, peer: str, theirs: float, *, times: float | None = None) -> None:
        """Things per second, ours and a peer's. With `times`: we do that many times as many."""
        self._add(what, ours, peer, theirs, ours / theirs, times, at_least=True, unit="/s")

    def _add(
        self, what: str, ours: float, peer: str, theirs: float, ratio: float, target: float | None, *, at_least: bool,
        unit: str = "ms",
    ) -> None:  # fmt: skip
        met = target is None or (ratio >= target if at_least else ratio <= target)
        bound = "" if target is None else f"{'>=' if at_least else '<='} {target:g}"
        self.rows.append(Row(what, ours, peer, theirs, ratio, bound, "" if target is None else "PASS" if met else "MISS", unit))

    def check(self, what: str) -> None:
        """Fail when a target of this measurement was missed."""
        mine = [r for r in self.rows if r.what == what and r.verdict == "MISS"]
        missed = [f"{r.ratio:.2f} beside {r.peer}, wanted {r.target}" for r in mine]
        assert not missed, f"{what}: {'; '.join(missed)}"

    def lines(self) -> list[str]:
        head = ("measurement", "ours", "beside", "theirs", "ratio", "target", "")
        cells = [head] + [
            (r.what, _figure(r.ours, r.unit), r.peer, _figure(r.theirs, r.unit), f"{r.ratio:.2f}", r.target, r.verdict)
            for r in self.rows
        ]
        widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
        right = {1, 3, 4}
        return [
            "  ".join(c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))).rstrip()
            for row in cells
        ]


def _figure(value: float, unit: str) -> str:
    return f"{value:,.1f}/s" if unit == "/s" else f"{value * 1000:,.2f} ms" if value < 0.1 else f"{value * 1000:,.0f} ms"


_board = Board()


@pytest.fixture
def board() -> Board:
    return _board


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if _board.rows:
        terminalreporter.section(f"ratios, DuckDB {duckdb.__version__}, {os.cpu_count()} cores")
        for line in _board.lines():
            terminalreporter.write_line(line)


def interleaved(rounds: int, **runs: Callable[[], float | None]) -> dict[str, list[float]]:
    """Seconds of each run in each round: A B C A B C ... A run may time itself and answer its seconds."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            own = run()
            seconds[name].append(time.perf_counter() - start if own is None else own)
    return seconds


@pytest.fixture
def medians() -> Callable[..., dict[str, float]]:
    """`interleaved`, and the median of each run."""

    def measure(rounds: int, **runs: Callable[[], float | None]) -> dict[str, float]:
        return {name: statistics.median(values) for name, values in interleaved(rounds, **runs).items()}

    return measure


@pytest.fixture(scope="session")
def peers_python() -> str:
    if not PEERS_PYTHON:
        pytest.skip("DELTADUCK_PEERS_PYTHON names no Python with DuckDB 1.5 and its extensions: `make bench` makes one")
    return str(Path(PEERS_PYTHON).absolute())


@pytest.fixture
def cold(peers_python: str) -> Callable[[str, Path, int], float]:
    """(who, directory, id) -> seconds, inside a fresh process with its imports done, to the plan of a point lookup."""

    def run(who: str, directory: Path, wanted: int) -> float:
        python = peers_python if who == "duckdb delta" else sys.executable
        command = [python, str(HERE / "cold.py"), who, str(directory), str(wanted)]
        answer = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        assert answer["files"] == 1
        return float(answer["seconds"])

    return run


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Path]:
    """A directory that is gone after the test: what is written here is large."""
    yield tmp_path
    shutil.rmtree(tmp_path)


class Peers:
    """A process that measures a peer on request, so that its turns can alternate with ours: DuckDB 1.5 is there, and delta-rs."""

    def __init__(self, python: str) -> None:
        self._process = subprocess.Popen(
            [python, str(HERE / "peers.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self, what: str, **arguments: Any) -> float:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"what": what, **arguments}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline() or '{"error": "the peers\' process died"}')
        if "error" in answer:
            raise RuntimeError(f"{what}: {answer['error']}")
        return float(answer["seconds"])

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


@pytest.fixture
def peers(peers_python: str) -> Iterator[Peers]:
    process = Peers(peers_python)
    yield process
    process.close()


@pytest.fixture
def delta_rs(peers_python: str) -> Iterator[Peers]:
    """Another one: what one has done to a process (its memory, its caches) makes the next slower by up to a fifth."""
    process = Peers(peers_python)
    yield process
    process.close()
