"""Is the published log what the catalog says? Compared set-wise by the engine."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import duckdb
import pyarrow as pa

from deltaduck import snapshot as snapshots
from deltaduck import storage
from deltaduck.catalog import Catalog
from deltaduck.errors import LogCorruptError
from deltaduck.mirror import checksum
from deltaduck.mirror.checkpoint import (
    COLUMNS,
    checkpoint_relations,
    checkpoint_rows,
    last_checkpoint,
    sidecars,
    write_checkpoint,
)
from deltaduck.mirror.publish import WHOLE_COMMITS, log_lines, same_actions
from deltaduck.parquet import translate
from deltaduck.protocol import log
from deltaduck.protocol.schema import literal, quote
from deltaduck.snapshot import Snapshot


@dataclass(frozen=True)
class Verification:
    """What a comparison found. True when there is no problem; versions and checkpoints say what was compared, repaired what was
    written anew before that."""

    table: str
    versions: int
    checkpoint: int | None
    problems: list[str] = field(default_factory=list)
    repaired: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return not self.problems

    def __str__(self) -> str:
        scope = f"{self.versions} commits" + (f" and the checkpoint of version {self.checkpoint}" if self.checkpoint else "")
        verdict = "equal to the catalog" if self else f"{len(self.problems)} problems: " + "; ".join(self.problems)
        repaired = f"{', '.join(self.repaired)} repaired; " if self.repaired else ""
        return f"mirror of {self.table!r}: {repaired}{scope} compared, {verdict}"


@dataclass(frozen=True)
class Problem:
    """A file that is not what it should be; content is what it should be, where that is ours to say."""

    text: str
    path: str = ""
    content: bytes | None = None
    version: int = -1


@dataclass(frozen=True)
class _Scope:
    """What is compared: versions of a table. whole: all that there are, and what is in the log beyond them."""

    catalog: Catalog
    engine: Any
    snapshot: Snapshot
    first: int
    last: int
    whole: bool


def verify_table(
    catalog: Catalog, engine: Any, snapshot: Snapshot, versions: tuple[int, int] | None = None, *, repair: bool = False
) -> Verification:
    """Compare every JSON commit up to the snapshot's version, and the newest checkpoint; or the commits of a range of versions,
    and every checkpoint in it. With repair, what is missing or wrong is written as it should be, and compared again."""
    first, last = versions or (0, 2**62)
    scope = _Scope(catalog, engine, snapshot, first, last, versions is None)
    owed = [o for o in catalog.rows("mirrored_versions", table_id=snapshot.table_id) if first <= o[0] <= last]
    repaired: list[str] = []
    if repair:
        times = {version: commit_ms for version, _, _, commit_ms in owed}
        repaired = [_repair(scope, problem, times) for problem in _problems(scope, owed) if problem.version >= 0]
    found = _problems(scope, owed)
    published = [v for v, status, _, _ in owed if status == "SUCCESS"]
    newest = max(_checkpoints(owed), default=None)
    return Verification(snapshot.name, len(published), newest, [p.text for p in found], repaired)


def _problems(scope: _Scope, owed: Sequence[tuple[Any, ...]]) -> list[Problem]:
    found = [Problem(f"version {v} is {status}") for v, status, _, _ in owed if status in ("PENDING", "DIVERGED")]
    found += _compare_commits(scope, {v for v, status, _, _ in owed if status == "SUCCESS"}, owed[0][0] if owed else 0)
    checkpoints = _checkpoints(owed)
    for version in checkpoints[-1:] if scope.whole else checkpoints:
        found += _compare_checkpoint(scope, version)
    if scope.whole and checkpoints and last_checkpoint(scope.snapshot.location) < 0:
        text = f"{log.LAST_CHECKPOINT} is missing, or names no checkpoint that is there"
        found.append(Problem(text, log.LAST_CHECKPOINT, None, checkpoints[-1]))
    return found


def _checkpoints(owed: Sequence[tuple[Any, ...]]) -> list[int]:
    return [v for v, status, is_checkpoint, _ in owed if is_checkpoint and status == "SUCCESS"]


def _repair(scope: _Scope, problem: Problem, times: Mapping[int, int]) -> str:
    """Write a file as it should be. What it holds, if anything, is kept beside it under a name that readers pass over."""
    location, catalog = scope.snapshot.location, scope.catalog
    if problem.content is None:  # a checkpoint, or what is written with it
        snapshot = snapshots.load(catalog, scope.snapshot.name, problem.version)
        write_checkpoint(catalog, scope.engine, snapshot, snapshot.commit_ms, over=True)
    else:
        if (found := storage.read(location, problem.path)) is not None:
            folder, name = problem.path.rsplit("/", 1)
            storage.put_if_absent(location, f"{folder}/.{name}.{uuid.uuid4().hex}.found", found)
        storage.replace(location, problem.path, problem.content, modified_ms=times[problem.version])
    return problem.path


def _compare_commits(scope: _Scope, known: set[int], since: int) -> list[Problem]:
    """since: the oldest version that the catalog has; what the log holds of older ones is not in question."""
    engine, location = scope.engine, scope.snapshot.location
    engine.register("dl_log_lines_wanted", log_lines(scope.catalog, scope.snapshot.table_id, scope.first, scope.last))
    engine.register("dl_log_files_found", _published_commits(location, scope.first, scope.last))
    query = f"""
        WITH wanted AS ({WHOLE_COMMITS}), found AS (
            SELECT version, content FROM dl_log_files_found
        )
        SELECT coalesce(w.version, f.version) AS version, w.content, f.content
        FROM wanted w FULL JOIN found f USING (version) WHERE encode(w.content) IS DISTINCT FROM f.content ORDER BY ALL
    """
    try:
        differing = engine.execute(query).fetchall()
    finally:
        engine.unregister("dl_log_files_found")
        engine.unregister("dl_log_lines_wanted")
    problems = []
    for version, wanted, found in differing:
        path, name = log.commit_file(version), log.commit_file(version)
        if wanted is None and version > since:
            problems.append(Problem(f"{name} was written by somebody else"))
        elif version in known and wanted is not None and found is None:
            problems.append(Problem(f"{name} is missing", path, wanted.encode(), version))
        elif version in known and wanted is not None and not same_actions(wanted.encode(), found):
            problems.append(Problem(f"{name} differs from the catalog", path, wanted.encode(), version))
    return problems


def _published_commits(location: str, first: int, last: int) -> pa.Table:
    """The JSON commits that are there: version and content."""
    names = [name for name in storage.list_log(location) or {} if re.fullmatch(r"[0-9]{20}\.json", name)]
    names = [name for name in names if first <= int(name[:20]) <= last]
    contents = storage.read_all(location, [f"{log.FOLDER}/{name}" for name in names])
    versions = pa.array([int(name[:20]) for name in names], pa.int64())
    return pa.table({"version": versions, "content": pa.array(contents, pa.large_binary())})


def _compare_checkpoint(scope: _Scope, version: int) -> list[Problem]:
    """Every action of a checkpoint and of its sidecars, and the checksum beside it where there is one."""
    path, location = log.checkpoint_file(version), scope.snapshot.location
    if not storage.exists(location, path):
        return [Problem(f"{path} is missing", path, None, version)]
    snapshot = snapshots.load(scope.catalog, scope.snapshot.name, version)
    relations = checkpoint_relations(scope.catalog, snapshot, snapshot.commit_ms)
    for name, rows in relations.items():
        scope.engine.register(name, rows)
    try:
        missing, extra = _count_differences(scope, relations, [path, *sidecars(location, version)])
    except (duckdb.Error, LogCorruptError) as e:
        reason = translate(e, location) if isinstance(e, duckdb.Error) else e.__cause__
        return [Problem(f"{path} cannot be read: {reason}", path, None, version)]
    finally:
        for name in relations:
            scope.engine.unregister(name)
    problems = []
    if missing or extra:
        problems.append(Problem(f"{path} lacks {missing} actions and has {extra} that it should not", path, None, version))
    found = storage.read(location, log.checksum_file(version))
    if found is not None and found != checksum.content(scope.catalog, snapshot, relations):
        path = log.checksum_file(version)
        problems.append(Problem(f"{path} differs from the catalog", path, None, version))
    return problems


def _count_differences(scope: _Scope, relations: Mapping[str, pa.Table], paths: Sequence[str]) -> tuple[int, int]:
    """(actions that a checkpoint lacks, actions that it should not have), compared as JSON, kind by kind."""
    place = storage.readable(scope.engine, scope.snapshot.location)
    files = ", ".join(literal(f"{place}/{path}") for path in paths)
    source = f"read_parquet([{files}], union_by_name=true, hive_partitioning=false)"
    there = scope.engine.sql(f"SELECT * FROM {source} LIMIT 0").columns
    columns = [column for _, column in COLUMNS]
    for name, rows, held in (("wanted", checkpoint_rows(relations), columns), ("found", f"SELECT * FROM {source}", there)):
        kinds = [
            f"SELECT {literal(c)}, CAST(to_json({quote(c)}) AS VARCHAR) FROM rows WHERE {quote(c)}.{quote(KEYS[c])} IS NOT NULL"
            for c in columns
            if c in held
        ]
        scope.engine.execute(
            f"CREATE OR REPLACE TEMP TABLE dl_{name}_actions AS WITH rows AS ({rows}) {' UNION ALL '.join(kinds)}"
        )
    try:
        query = "SELECT count(*) FROM (FROM dl_{} EXCEPT ALL FROM dl_{})"
        wanted_only, found_only = ("wanted_actions", "found_actions"), ("found_actions", "wanted_actions")
        ((missing,),) = scope.engine.execute(query.format(*wanted_only)).fetchall()
        ((extra,),) = scope.engine.execute(query.format(*found_only)).fetchall()
    finally:
        scope.engine.execute("DROP TABLE dl_wanted_actions; DROP TABLE dl_found_actions")
    return missing, extra


KEYS = {  # the member that every action of a kind has
    "protocol": "minReaderVersion", "metaData": "id", "txn": "appId", "domainMetadata": "domain", "remove": "path", "add": "path",
}  # fmt: skip
