"""Log compaction: what a range of commits comes to, in one file beside them."""

from __future__ import annotations

from deltaduck import storage
from deltaduck.catalog import Catalog
from deltaduck.commit import KINDS
from deltaduck.errors import MirrorError
from deltaduck.protocol import log
from deltaduck.snapshot import Snapshot

RECONCILED = tuple(kind for kind in KINDS if kind not in ("commit_info", "cdc", "other"))


def compact(catalog: Catalog, snapshot: Snapshot, first: int | None, last: int | None) -> str:
    """See ``Mirror.compact``."""
    known = catalog.rows("mirrored_versions", table_id=snapshot.table_id)
    last = snapshot.version if last is None else last
    if first is None:
        first = 1 + max(
            (v for v, status, is_checkpoint, _ in known if is_checkpoint and status == "SUCCESS" and v < last), default=-1
        )
    published = {v for v, status, _, _ in known if status == "SUCCESS"}
    if last <= first or not published.issuperset(range(first, last + 1)):
        raise MirrorError(
            f"versions {first} to {last} of table {snapshot.name!r} cannot be compacted: they must be two or more, and published "
            "(lake.mirror.status, lake.mirror.reconcile)"
        )
    lines = " UNION ALL ".join(
        f"SELECT version, action_order, line FROM ({catalog.sql('line_' + kind)}) of_{kind} "
        "WHERE table_id = :table_id AND version BETWEEN :first AND :last"
        for kind in RECONCILED
    )
    query = (
        f"SELECT l.line FROM ({lines}) l JOIN ({catalog.sql('last_words')}) w ON w.version = l.version "
        "AND w.action_order = l.action_order ORDER BY l.version, l.action_order"
    )
    rows = catalog.fetch(query, {"table_id": snapshot.table_id, "first": first, "last": last})
    path = log.compacted_file(first, last)
    storage.put_if_absent(snapshot.location, path, "".join(line + "\n" for (line,) in rows).encode())
    return path.rsplit("/", 1)[-1]
