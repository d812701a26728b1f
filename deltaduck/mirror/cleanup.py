"""Old files of a published log: those that no version within the log's retention needs. The catalog keeps everything."""

from __future__ import annotations

from deltaduck import storage
from deltaduck.catalog import Catalog
from deltaduck.protocol import log
from deltaduck.protocol.features import interval_ms
from deltaduck.snapshot import Snapshot


def clean_up(catalog: Catalog, snapshot: Snapshot, now_ms: int) -> int:
    """Delete the commits and checkpoints before the newest checkpoint that is older than ``delta.logRetentionDuration``; how
    many files went. Every version since can be read by others as before."""
    if snapshot.configuration.get("delta.enableExpiredLogCleanup", "true").lower() != "true":
        return 0
    before = now_ms - interval_ms(snapshot.configuration, "delta.logRetentionDuration", "30 days")
    ((base,),) = catalog.rows("expired_base", table_id=snapshot.table_id, before_ms=before)
    if base is None or not storage.exists(snapshot.location, log.checkpoint_file(base)):
        return 0
    expired = catalog.rows("published_before", table_id=snapshot.table_id, version=base)
    names = [log.commit_file(v) for v, _ in expired] + [log.checkpoint_file(v) for v, is_checkpoint in expired if is_checkpoint]
    found = [name for name in names if storage.exists(snapshot.location, name)]
    with catalog.transaction():  # before they go: a verification must not miss them
        catalog.run("mark_expired", table_id=snapshot.table_id, version=base)
    storage.delete(snapshot.location, found)
    return len(found)
