"""Classic Parquet checkpoints and ``_last_checkpoint``."""

from __future__ import annotations

import json
import os
from typing import Any

import duckdb
import pyarrow as pa

from deltaduck import statements, storage
from deltaduck.catalog import Catalog
from deltaduck.parquet import translate
from deltaduck.protocol import log
from deltaduck.protocol.features import interval_ms
from deltaduck.protocol.schema import literal, to_json
from deltaduck.snapshot import Snapshot

COLUMNS = (  # of a checkpoint, by the relation that fills them
    ("dl_checkpoint_head", "protocol"),
    ("dl_checkpoint_head", "metaData"),
    ("dl_checkpoint_txns", "txn"),
    ("dl_checkpoint_domains", "domainMetadata"),
    ("dl_checkpoint_removes", "remove"),
    ("dl_checkpoint_files", "add"),
)


def write_checkpoint(catalog: Catalog, engine: Any, snapshot: Snapshot, commit_ms: int) -> bool:
    """Write the checkpoint of a snapshot's version, unless it is there, and point ``_last_checkpoint`` at it.

    Tombstones are kept for ``delta.deletedFileRetentionDuration`` before the commit's own time, so that the content
    depends on the rows alone. False when a checkpoint of that version was there.
    """
    relations = _relations(catalog, snapshot, commit_ms)
    hidden = storage.scratch(snapshot.location)
    for name, rows in relations.items():
        engine.register(name, rows)
    try:
        parts = statements.load("engine")
        query = " UNION ALL ".join(parts[p] for p in ("checkpoint_protocol", "checkpoint_metadata"))
        for name in list(relations)[1:]:
            query += f" UNION ALL {parts[name.removeprefix('dl_')]}"
        # a column of nothing costs as much to write as one of something, and readers take a missing one for it
        columns = ", ".join(f'"{column}"' for name, column in COLUMNS if name in relations)
        engine.execute(f"COPY (SELECT {columns} FROM ({query})) TO {literal(hidden)} (FORMAT parquet, COMPRESSION snappy)")
    except duckdb.Error as e:
        storage.remove([hidden])
        raise translate(e, snapshot.location) from e
    finally:
        for name in relations:
            engine.unregister(name)
    size = os.path.getsize(hidden)
    written = storage.put_file_if_absent(snapshot.location, log.checkpoint_file(snapshot.version), hidden)
    adds = relations["dl_checkpoint_files"].num_rows
    actions = 1 + sum(rows.num_rows for rows in relations.values())
    if (_last_checkpoint(snapshot.location) or -1) > snapshot.version:
        return written
    last = {"version": snapshot.version, "size": actions, "sizeInBytes": size, "numOfAddFiles": adds}
    storage.replace(snapshot.location, log.LAST_CHECKPOINT, json.dumps(last, separators=(",", ":")).encode())
    return written


def _last_checkpoint(location: str) -> int | None:
    """The version that ``_last_checkpoint`` names; None when there is none, or none that can be read."""
    try:
        return int(json.loads(storage.read(location, log.LAST_CHECKPOINT) or b"{}").get("version", -1))
    except (ValueError, AttributeError):
        return None


def _relations(catalog: Catalog, snapshot: Snapshot, commit_ms: int) -> dict[str, pa.Table]:
    """What the checkpoint's SQL reads: the catalog's rows, as Arrow."""
    scope = {"table_id": snapshot.table_id, "version": snapshot.version}
    since = commit_ms - interval_ms(snapshot.configuration, "delta.deletedFileRetentionDuration", "7 days")
    p = snapshot.protocol
    head = {
        "min_reader_version": p.min_reader_version, "min_writer_version": p.min_writer_version,
        "reader_features": None if p.reader_features is None else json.dumps(p.reader_features),
        "writer_features": None if p.writer_features is None else json.dumps(p.writer_features),
        "id": snapshot.metadata_id, "name": snapshot.metadata_name, "description": snapshot.description,
        "schema_string": to_json(snapshot.schema), "partition_columns": json.dumps(snapshot.partition_columns),
        "created_time": snapshot.created_ms, "configuration": json.dumps(dict(snapshot.configuration)),
    }  # fmt: skip
    types = {"min_reader_version": pa.int32(), "min_writer_version": pa.int32(), "created_time": pa.int64()}
    found = {"dl_checkpoint_head": pa.table({k: pa.array([v], types.get(k, pa.string())) for k, v in head.items()})}
    ((removes, txns, domains),) = catalog.rows("checkpoint_kinds", table_id=snapshot.table_id)
    if txns:
        found["dl_checkpoint_txns"] = catalog.arrow("checkpoint_txns", **scope)
    if domains:
        found["dl_checkpoint_domains"] = catalog.arrow("checkpoint_domains", **scope)
    if removes:
        found["dl_checkpoint_removes"] = catalog.arrow("checkpoint_removes", **scope, since_ms=since)
    found["dl_checkpoint_files"] = catalog.arrow("checkpoint_files", **scope)
    return found
