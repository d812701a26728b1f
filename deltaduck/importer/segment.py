"""Which files of a ``_delta_log`` make up a table: a checkpoint to start from, and the commits after it.

Protocol: https://github.com/delta-io/delta/blob/master/PROTOCOL.md#delta-log-entries
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from deltaduck.errors import LogCorruptError

_FILE = re.compile(
    r"(?P<version>\d{20})"
    r"(?:\.json"
    r"|\.(?P<until>\d{20})\.compacted\.json"
    r"|\.checkpoint\.parquet"
    r"|\.checkpoint\.(?P<part>\d{10})\.(?P<parts>\d{10})\.parquet"
    r"|\.checkpoint\.(?P<uuid>[0-9a-fA-F-]{36})\.(?:json|parquet))"
)
MAX_VERSION = 2**53  # what every engine's numbers hold


@dataclass(frozen=True)
class Segment:
    """One way to read a log. Versions up to `base` are known only as the state at `base` (-1: all are known).

    checkpoint: files of the state at `checkpoint_version`; commits: (version, file) in order, where a compacted file
    stands for all versions up to its own.
    """

    checkpoint_version: int
    checkpoint: tuple[str, ...]
    commits: tuple[tuple[int, str], ...]
    base: int
    latest: int

    @property
    def first(self) -> int:
        """The oldest version that can be read."""
        return max(self.base, 0)


@dataclass(frozen=True)
class _Log:
    commits: dict[int, str]
    checkpoints: dict[int, tuple[str, ...]]
    compacted: list[tuple[int, int, str]]


def segments(names: Iterable[str], up_to: int | None = None) -> list[Segment]:
    """Every way to read the log of these file names, the longest history first.

    LogCorruptError when there is none: no commit and no checkpoint, or a version is missing (it is named).
    """
    log = _sorted_out(names, up_to)
    versions = log.commits.keys() | log.checkpoints.keys()
    if not versions:
        raise LogCorruptError("the log holds no commit and no checkpoint" + ("" if up_to is None else f" up to version {up_to}"))
    latest = max(versions)
    if up_to is not None and latest < up_to:
        raise LogCorruptError(f"the log ends at version {latest}: there is no version {up_to}")
    steps, reach, base = _walk_back(log, latest)
    starts = sorted(v for v in log.checkpoints if v >= reach)
    found = [_from(log, start, steps, base, latest) for start in starts]
    if reach == -1:
        found.insert(0, Segment(-1, (), tuple(reversed(steps)), base, latest))
    if not found:
        way_out = f" its file back, or import what is before it with up_to_version={reach - 1}" if reach else " its file back"
        raise LogCorruptError(f"version {reach} of the log is missing, and no checkpoint replaces it: bring{way_out}")
    return found


def _sorted_out(names: Iterable[str], up_to: int | None) -> _Log:
    log = _Log({}, {}, [])
    parts: dict[tuple[int, int], dict[int, str]] = {}
    for name in sorted(names):
        if (match := _FILE.fullmatch(name)) is None:
            continue
        version = int(match["version"])
        if version > MAX_VERSION:
            raise LogCorruptError(f"{name} is of a version that no reader can count to")
        if up_to is not None and max(version, int(match["until"] or 0)) > up_to:
            continue
        if match["until"]:
            if int(match["until"]) >= version:
                log.compacted.append((version, int(match["until"]), name))
        elif match["parts"]:
            parts.setdefault((version, int(match["parts"])), {})[int(match["part"])] = name
        elif ".checkpoint." in name:
            log.checkpoints[version] = (name,)
        else:
            log.commits[version] = name
    for (version, count), found in parts.items():
        if sorted(found) == list(range(1, count + 1)) and version not in log.checkpoints:
            log.checkpoints[version] = tuple(found[i] for i in sorted(found))
    return log


def _walk_back(log: _Log, latest: int) -> tuple[list[tuple[int, str]], int, int]:
    """(steps from the latest version down, the newest version that no step gives, the last one that a compacted file hides)."""
    steps: list[tuple[int, str]] = []
    version, base = latest, -1
    while version >= 0:
        if version in log.commits:
            steps.append((version, log.commits[version]))
            version -= 1
            continue
        bridge = next(((lo, hi, name) for lo, hi, name in log.compacted if lo <= version <= hi <= latest), None)
        if bridge is None:
            break
        lo, hi, name = bridge
        steps = [step for step in steps if step[0] > hi]
        steps.append((hi, name))
        base = max(base, hi)
        version = lo - 1
    return steps, version, base


def _from(log: _Log, start: int, steps: list[tuple[int, str]], base: int, latest: int) -> Segment:
    after = tuple((v, name) for v, name in reversed(steps) if v > start)
    return Segment(start, log.checkpoints[start], after, max(start, base), latest)
