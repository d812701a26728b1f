"""Random transactions of many processes, what each of them saw and wrote, and whether any order of them explains it.

Registers (one row per key, overwritten) and logs (rows appended blindly) are in tables partitioned by key. Every value is
written once, so a read names its writer. Run as a program, it is one of the processes: a JSON record per transaction.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise

import deltaduck
from deltaduck import CommitConflictError, Lake

REGISTERS, LOGS, KEYS = ("red", "blue"), ("log",), range(2)


@dataclass
class Seen:
    """A transaction that committed (or not). Keys are "table:key"; what it read is from before its own writes."""

    name: str
    reads: dict[str, int] = field(default_factory=dict)
    writes: dict[str, int] = field(default_factory=dict)
    logs: dict[str, list[int]] = field(default_factory=dict)
    appends: dict[str, list[int]] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    committed: bool = True


# --- the transactions


def create(lake: Lake) -> None:
    """Every register holds 0, every log nothing."""
    for table in REGISTERS:
        lake.write(table, [{"k": k, "v": 0} for k in KEYS], partition_by="k")
    for table in LOGS:
        lake.create_table(table, {"k": "BIGINT", "e": "BIGINT"}, partition_by="k")


def run(lake: Lake, isolation: str, who: int, count: int, chance: random.Random) -> Iterator[Seen]:
    """Transactions of one writer."""
    for n in range(count):
        seen = Seen(f"{who}.{n}")
        try:
            with lake.begin(isolation) as tx:
                for step in range(chance.randint(2, 5)):
                    act(tx, seen, 1 + who * 1_000_000 + n * 100 + step, chance)
            seen.versions = {c.name: c.version for c in tx.committed}
        except CommitConflictError:
            seen.committed = False
        yield seen


def act(tx: deltaduck.Transaction, seen: Seen, unique: int, chance: random.Random) -> None:
    table, k = chance.choice([*REGISTERS, *LOGS]), chance.choice(KEYS)
    key = f"{table}:{k}"
    if table in LOGS:
        if chance.random() < 0.5:
            tx.write(table, [{"k": k, "e": unique}])
            seen.appends.setdefault(key, []).append(unique)
        else:
            found = {e for (e,) in tx.sql(f"SELECT e FROM {table} WHERE k = {k}").fetchall()}
            mine = set(seen.appends.get(key, []))
            assert mine <= found, f"{seen.name} does not see its own rows"
            assert set(seen.logs.get(key, found - mine)) == found - mine, f"{seen.name} reads twice and sees two things"
            seen.logs[key] = sorted(found - mine)
        return
    if chance.random() < 0.7:
        ((value,),) = tx.sql(f"SELECT v FROM {table} WHERE k = {k}").fetchall()
        if key in seen.writes:
            assert value == seen.writes[key], f"{seen.name} does not see its own value"
        else:
            assert seen.reads.setdefault(key, value) == value, f"{seen.name} reads twice and sees two things"
    if chance.random() < 0.5:
        tx.sql(f"UPDATE {table} SET v = {unique} WHERE k = {k}")
        seen.writes[key] = unique


# --- the check


def problems(history: Sequence[Seen], *, serializable: bool) -> list[str]:
    """What no correct database would have let happen; none is the answer wanted.

    Always: nobody reads what was not committed (G1a), nor a value in between (G1b); no cycle of writes and of reads from
    writers (G0, G1c); no cycle with one read that was overwritten (G-single: lost updates, and reads of two points in time).
    Serializable: no cycle at all (G2), overwritten reads and missed appends included.
    """
    done = [t for t in history if t.committed]
    writer = {(key, value): t.name for t in done for key, value in t.writes.items()}
    appender = {(key, e): t.name for t in done for key, es in t.appends.items() for e in es}
    ghosts = [
        f"{t.name} read {value} of {key}, which nobody committed"
        for t in done
        for key, value in [*t.reads.items(), *((k, e) for k, es in t.logs.items() for e in es)]
        if value and (key, value) not in writer and (key, value) not in appender
    ]
    if ghosts:
        return ghosts
    ahead: dict[str, set[str]] = {t.name: set() for t in done}  # what must come later: overwrites, and readers of a writer
    missed: list[tuple[str, str]] = []  # reader -> who overwrote what it read, or appended what it did not see
    overwriter: dict[tuple[str, int], str] = {}
    for key, names in orders(done).items():
        values = [0, *(next(t.writes[key] for t in done if t.name == name) for name in names)]
        overwriter |= {(key, value): name for value, name in zip(values, names)}
        for a, b in pairwise(names):
            ahead[a].add(b)
    for t in done:
        for key, value in t.reads.items():
            if value:
                ahead[writer[key, value]].add(t.name)
            if overwriter.get((key, value), t.name) != t.name:
                missed.append((t.name, overwriter[key, value]))
        for key, seen in t.logs.items():
            for (other, e), name in appender.items():
                if other == key and name != t.name:
                    if e in seen:
                        ahead[name].add(t.name)
                    else:
                        missed.append((t.name, name))
    found = [f"each comes before the next: {' < '.join(c)}" for c in [cycle(ahead)] if c]
    for reader, later in missed:
        if not found and reader in reachable(ahead, later):
            found.append(f"{reader} did not see what {later} wrote, and did see what came after it")
    if serializable and not found:
        everything = {name: set(others) for name, others in ahead.items()}
        for reader, later in missed:
            everything[reader].add(later)
        found = [f"no order explains what was read: {' < '.join(c)}" for c in [cycle(everything)] if c]
    return found


def orders(done: Iterable[Seen]) -> dict[str, list[str]]:
    """key -> who wrote it, in the order of its table's versions."""
    found: dict[str, list[tuple[int, str]]] = {}
    for t in done:
        for key in t.writes:
            found.setdefault(key, []).append((t.versions[key.split(":")[0]], t.name))
    return {key: [name for _, name in sorted(writers)] for key, writers in found.items()}


def reachable(edges: Mapping[str, set[str]], start: str) -> set[str]:
    seen, todo = {start}, [start]
    while todo:
        new = edges[todo.pop()] - seen
        seen |= new
        todo += new
    return seen


def cycle(edges: Mapping[str, set[str]]) -> list[str]:
    """A circle of the graph; [] when it has none."""
    state: dict[str, int] = {}
    way: list[str] = []

    def walk(name: str) -> list[str]:
        state[name] = 1
        way.append(name)
        for other in sorted(edges[name]):
            if state.get(other) == 1:
                return [*way[way.index(other) :], other]
            if other not in state and (found := walk(other)):
                return found
        state[name] = 2
        way.pop()
        return []

    return next((found for name in edges if name not in state and (found := walk(name))), [])


if __name__ == "__main__":
    target, storage, isolation, who, count, seed = sys.argv[1:]
    sys.setrecursionlimit(10_000)
    with deltaduck.connect(target, storage=storage) as opened:
        for transaction in run(opened, isolation, int(who), int(count), random.Random(int(seed))):
            print(json.dumps(asdict(transaction)), flush=True)
