"""Concurrent random transactions: is there an order of them that explains everything anybody saw?"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import history
import pytest
from history import Seen

import deltaduck

TESTS = Path(__file__).resolve().parents[1]
Place = Callable[[str, Path], str]
WRITERS, TRANSACTIONS = 4, 12


def in_processes(target: str, storage: str, level: str, seeds: list[int]) -> list[Seen]:
    command = [sys.executable, str(TESTS / "history.py"), target, storage, level]
    jobs = [
        subprocess.Popen([*command, str(who), str(TRANSACTIONS), str(seed)], stdout=subprocess.PIPE, text=True)
        for who, seed in enumerate(seeds)
    ]
    outputs = [job.communicate(timeout=120)[0] for job in jobs]
    assert [job.returncode for job in jobs] == [0] * len(jobs)
    return [Seen(**json.loads(line)) for output in outputs for line in output.splitlines()]


def in_threads(target: str, storage: str, level: str, seeds: list[int]) -> list[Seen]:
    """DuckDB lets one process in."""
    found: list[Seen] = []
    with deltaduck.connect(target, storage=storage) as lake:

        def work(who: int, seed: int) -> None:
            found.extend(history.run(lake, level, who, TRANSACTIONS, random.Random(seed)))

        threads = [threading.Thread(target=work, args=(who, seed)) for who, seed in enumerate(seeds)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return found


@pytest.mark.parametrize(
    ("kind", "level"),
    [("duckdb", "serializable"), ("sqlite", "serializable"), ("postgres", "serializable"), ("postgres", "write_serializable")],
)
def test_an_order_explains_what_everybody_saw(kind: str, level: str, tmp_path: Path, place: Place) -> None:
    target, storage = place(kind, tmp_path), str(tmp_path / "data")
    with deltaduck.connect(target, storage=storage) as lake:
        history.create(lake)
    seeds = [random.randrange(2**32) for _ in range(WRITERS)]  # others each time; the promise holds for all
    seen = (in_threads if kind == "duckdb" else in_processes)(target, storage, level, seeds)
    assert len(seen) == WRITERS * TRANSACTIONS
    found = history.problems(seen, serializable=level == "serializable")
    assert not found, (seeds, found, [t for t in seen if t.committed])
    done = [t for t in seen if t.committed]
    assert len(done) >= TRANSACTIONS  # not all of them in each other's way
    with deltaduck.connect(target, storage=storage) as lake:
        for table in history.REGISTERS:
            last = {key: names[-1] for key, names in history.orders(done).items() if key.startswith(table)}
            wanted = {key: next(t.writes[key] for t in done if t.name == name) for key, name in last.items()}
            rows = {f"{table}:{k}": v for k, v in lake.sql(f"SELECT k, v FROM {table}").fetchall()}
            assert rows == {f"{table}:{k}": 0 for k in history.KEYS} | wanted
        (log,) = history.LOGS
        appended = sorted(e for t in done for es in t.appends.values() for e in es)
        assert [e for (e,) in lake.sql(f"SELECT e FROM {log} ORDER BY e").fetchall()] == appended
        for table in (*history.REGISTERS, *history.LOGS):
            lake.mirror.reconcile(table)
            assert lake.mirror.verify(table), str(lake.mirror.verify(table))


BAD = {
    "a value that nobody committed": [
        Seen("a", writes={"red:1": 5}, committed=False),
        Seen("b", reads={"red:1": 5}),
    ],
    "a lost update": [
        Seen("a", reads={"red:1": 0}, writes={"red:1": 5}, versions={"red": 1}),
        Seen("b", reads={"red:1": 0}, writes={"red:1": 6}, versions={"red": 2}),
    ],
    "half of a transaction": [
        Seen("a", writes={"red:1": 5, "blue:1": 6}, versions={"red": 1, "blue": 1}),
        Seen("b", reads={"red:1": 5, "blue:1": 0}),
    ],
    "two that read each other": [
        Seen("a", reads={"red:1": 6}, writes={"blue:1": 5}, versions={"blue": 1}),
        Seen("b", reads={"blue:1": 5}, writes={"red:1": 6}, versions={"red": 1}),
    ],
    "writes in two orders": [
        Seen("a", writes={"red:1": 5, "blue:1": 6}, versions={"red": 1, "blue": 2}),
        Seen("b", writes={"red:1": 7, "blue:1": 8}, versions={"red": 2, "blue": 1}),
    ],
    "an append seen late": [
        Seen("a", appends={"log:1": [5]}, writes={"red:1": 6}, versions={"log": 1, "red": 1}),
        Seen("b", reads={"red:1": 6}, logs={"log:1": []}),
    ],
}
SKEWED = {
    "write skew": [
        Seen("a", reads={"red:1": 0}, writes={"blue:1": 5}, versions={"blue": 1}),
        Seen("b", reads={"blue:1": 0}, writes={"red:1": 6}, versions={"red": 1}),
    ],
    "a blind append under a reader": [
        Seen("a", logs={"log:1": []}, writes={"blue:1": 5}, versions={"blue": 1}),
        Seen("b", reads={"blue:1": 0}, appends={"log:1": [6]}, versions={"log": 1}),
    ],
}


@pytest.mark.parametrize("seen", BAD.values(), ids=list(BAD))
def test_the_checker_finds(seen: list[Seen]) -> None:
    assert history.problems(seen, serializable=False)
    assert history.problems(seen, serializable=True)


@pytest.mark.parametrize("seen", SKEWED.values(), ids=list(SKEWED))
def test_what_only_serializable_forbids(seen: list[Seen]) -> None:
    assert not history.problems(seen, serializable=False)
    assert history.problems(seen, serializable=True)


def test_the_checker_lets_a_good_history_pass() -> None:
    good = [
        Seen("a", reads={"red:1": 0}, writes={"red:1": 5}, versions={"red": 1}),
        Seen("b", reads={"red:1": 5}, writes={"red:1": 6, "blue:1": 7}, versions={"red": 2, "blue": 1}),
        Seen("c", reads={"blue:1": 0, "red:1": 5}, logs={"log:1": []}),
        Seen("d", reads={"blue:1": 7}, appends={"log:1": [8]}, versions={"log": 1}),
        Seen("e", writes={"red:1": 9}, committed=False),
    ]
    assert history.problems(good, serializable=True) == []
