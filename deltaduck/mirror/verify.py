"""Is the published log what the catalog says? Compared set-wise by the engine."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import duckdb
import pyarrow as pa

from deltaduck import storage
from deltaduck.catalog import Catalog
from deltaduck.mirror.publish import WHOLE_COMMITS, log_lines, same_actions
from deltaduck.parquet import translate
from deltaduck.protocol import log
from deltaduck.protocol.schema import literal
from deltaduck.snapshot import Snapshot


@dataclass(frozen=True)
class Verification:
    """What a comparison found. True when there is no problem; versions and checkpoints say what was compared."""

    table: str
    versions: int
    checkpoint: int | None
    problems: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return not self.problems

    def __str__(self) -> str:
        scope = f"{self.versions} commits" + (f" and the checkpoint of version {self.checkpoint}" if self.checkpoint else "")
        verdict = "equal to the catalog" if self else f"{len(self.problems)} problems: " + "; ".join(self.problems)
        return f"mirror of {self.table!r}: {scope} compared, {verdict}"


def verify_table(catalog: Catalog, engine: Any, snapshot: Snapshot) -> Verification:
    """Compare every JSON commit up to the snapshot's version, and the newest checkpoint."""
    owed = catalog.rows("mirrored_versions", table_id=snapshot.table_id)
    problems = [f"version {v} is {status}" for v, status, _, _ in owed if status in ("PENDING", "DIVERGED")]
    published = [v for v, status, _, _ in owed if status == "SUCCESS"]
    problems += _compare_commits(catalog, engine, snapshot, published, since=owed[0][0])
    checkpoints = [v for v, status, is_checkpoint, _ in owed if is_checkpoint and status == "SUCCESS"]
    newest = max(checkpoints, default=None)
    if newest is not None:
        problems += _compare_checkpoint(catalog, engine, snapshot, newest)
    return Verification(snapshot.name, len(published), newest, problems)


def _compare_commits(catalog: Catalog, engine: Any, snapshot: Snapshot, published: list[int], since: int) -> list[str]:
    """since: the oldest version that the catalog has; what the log holds of older ones is not in question."""
    engine.register("dl_log_lines_wanted", log_lines(catalog, snapshot.table_id))
    engine.register("dl_log_files_found", _published_commits(snapshot.location))
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
    problems, known = [], set(published)
    for version, wanted, found in differing:
        if found is None and version in known:
            problems.append(f"{log.commit_file(version)} is missing")
        elif wanted is None and version > since:
            problems.append(f"{log.commit_file(version)} was written by somebody else")
        elif version in known and not same_actions(wanted.encode(), found or b""):
            problems.append(f"{log.commit_file(version)} differs from the catalog")
    return problems


def _published_commits(location: str) -> pa.Table:
    """The JSON commits that are there: version and content."""
    names = [name for name in storage.list_log(location) or {} if re.fullmatch(r"[0-9]{20}\.json", name)]
    contents = storage.read_all(location, [f"{log.FOLDER}/{name}" for name in names])
    versions = pa.array([int(name[:20]) for name in names], pa.int64())
    return pa.table({"version": versions, "content": pa.array(contents, pa.large_binary())})


def _compare_checkpoint(catalog: Catalog, engine: Any, snapshot: Snapshot, version: int) -> list[str]:
    path = log.checkpoint_file(version)
    if not storage.exists(snapshot.location, path):
        return [f"{path} is missing"]
    engine.register("dl_files_wanted", catalog.arrow("checkpoint_files", table_id=snapshot.table_id, version=version))
    try:
        source = f"read_parquet({literal(storage.readable(engine, snapshot.location) + '/' + path)})"
        ((missing, extra),) = engine.execute(f"""
            WITH found AS (SELECT add.path AS path, add.size AS size, add.stats AS stats FROM {source} WHERE add IS NOT NULL),
                 wanted AS (SELECT path, size, stats FROM dl_files_wanted)
            SELECT (SELECT count(*) FROM (FROM wanted EXCEPT ALL FROM found)),
                   (SELECT count(*) FROM (FROM found EXCEPT ALL FROM wanted))
        """).fetchall()
    except duckdb.Error as e:
        return [f"{path} cannot be read: {translate(e, snapshot.location)}"]
    finally:
        engine.unregister("dl_files_wanted")
    return [f"{path} lacks {missing} files and has {extra} that it should not"] if missing or extra else []
