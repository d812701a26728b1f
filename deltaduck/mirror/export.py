"""A table's log written anew, elsewhere: all that the catalog knows of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from deltaduck import snapshot as snapshots
from deltaduck import storage
from deltaduck.catalog import Catalog
from deltaduck.errors import MirrorError
from deltaduck.mirror.checkpoint import write_checkpoint
from deltaduck.mirror.publish import WHOLE_COMMITS, log_lines
from deltaduck.protocol import log
from deltaduck.snapshot import Snapshot

BATCH = 1_000  # versions whose lines are held at a time


def export_log(catalog: Catalog, engine: Any, snapshot: Snapshot, directory: str) -> int:
    """Write every known version into `directory`/_delta_log, beginning with a checkpoint where history does; how many.

    MirrorError when there is a log already.
    """
    root = storage.normalize(directory)
    if storage.list_log(root):
        raise MirrorError(f"{root} holds a _delta_log already: export table {snapshot.name!r} to an empty directory")
    storage.make_root(root)
    versions = catalog.rows("mirrored_versions", table_id=snapshot.table_id)
    for version, status, _, commit_ms in versions:
        if status == "CHECKPOINT":
            base = snapshots.load(catalog, snapshot.name, version)
            write_checkpoint(catalog, engine, replace(base, location=root), commit_ms)
    times = {version: commit_ms for version, status, _, commit_ms in versions if status != "CHECKPOINT"}
    known = list(times)
    for start in range(0, len(known), BATCH):
        some = known[start : start + BATCH]
        commits = _commits(catalog, engine, snapshot.table_id, some[0], some[-1])
        storage.write_new(root, [(log.commit_file(v), commits.get(v, b""), times[v]) for v in some])
    return len(versions)


def _commits(catalog: Catalog, engine: Any, table_id: int, first: int, last: int) -> dict[int, bytes]:
    """version → its JSON commit."""
    engine.register("dl_log_lines_wanted", log_lines(catalog, table_id, first, last))
    try:
        return {version: content.encode() for version, content in engine.execute(WHOLE_COMMITS).fetchall()}
    finally:
        engine.unregister("dl_log_lines_wanted")
