"""Old files of a published log: those that no version within the log's retention needs. The catalog keeps everything."""

from __future__ import annotations

import re

from deltaduck import storage
from deltaduck.catalog import Catalog
from deltaduck.mirror.checkpoint import sidecars
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
    listed = storage.list_log(snapshot.location) or {}
    found = [f"{log.FOLDER}/{name}" for name in listed if _is_before(name, base) or is_compaction_up_to(name, base)]
    for version, is_checkpoint in expired:
        found += sidecars(snapshot.location, version) if is_checkpoint else []
    with catalog.transaction():  # before they go: a verification must not miss them
        catalog.run("mark_expired", table_id=snapshot.table_id, version=base)
    storage.delete(snapshot.location, found)
    return len(found)


def _is_before(name: str, version: int) -> bool:
    """Is it the name of a commit, checkpoint or checksum of an earlier version, whoever wrote it?"""
    match = re.fullmatch(r"(\d{20})\.(json|crc|checkpoint\..+)", name)
    return match is not None and int(match[1]) < version


def is_compaction_up_to(name: str, version: int) -> bool:
    """Is it the name of a log compaction that holds nothing after that version?"""
    match = re.fullmatch(r"\d{20}\.(\d{20})\.compacted\.json", name)
    return match is not None and int(match[1]) <= version
