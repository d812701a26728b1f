"""Rows of the catalog → files of ``_delta_log``. The bytes come from the rows alone, so a retry writes the same bytes."""

from __future__ import annotations

import json
from collections.abc import Sequence

from deltaduck import storage
from deltaduck.catalog import Catalog
from deltaduck.commit import KINDS
from deltaduck.protocol import log


def commit_bytes(catalog: Catalog, table_id: int, version: int, kinds: Sequence[str] = KINDS) -> bytes:
    """The JSON commit of a version. kinds: the actions it is known to hold."""
    lines = " UNION ALL ".join(
        f"SELECT action_order, line FROM ({catalog.sql('line_' + kind)}) of_{kind} "
        "WHERE table_id = :table_id AND version = :version"
        for kind in kinds
    )
    rows = catalog.fetch(f"{lines} ORDER BY action_order", {"table_id": table_id, "version": version})
    return "".join(line + "\n" for _, line in rows).encode()


def publish_commit(catalog: Catalog, table_id: int, location: str, version: int, commit_ms: int, kinds: Sequence[str]) -> bool:
    """Put the JSON commit in place. False when another commit of that version is there: the log has diverged."""
    data = commit_bytes(catalog, table_id, version, kinds)
    path = log.commit_file(version)
    if storage.put_if_absent(location, path, data, modified_ms=commit_ms):
        return True
    found = storage.read(location, path)
    return found is not None and same_actions(found, data)


def same_actions(a: bytes, b: bytes) -> bool:
    """Are two JSON commits the same actions in the same order?"""
    if a == b:
        return True
    try:
        return [json.loads(x) for x in a.splitlines() if x] == [json.loads(x) for x in b.splitlines() if x]
    except ValueError:
        return False
