"""Parquet checkpoints, classic and V2, ``_last_checkpoint``, and the version checksum beside them."""

from __future__ import annotations

import hashlib
import io
import json
import os
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from deltaduck import statements, storage
from deltaduck.catalog import Catalog
from deltaduck.errors import LogCorruptError
from deltaduck.mirror import checksum
from deltaduck.parquet import translate
from deltaduck.protocol import log
from deltaduck.protocol.features import interval_ms
from deltaduck.protocol.schema import literal, to_json
from deltaduck.snapshot import Snapshot

BATCH = 20_000  # rows that are asked for while those before are written
FILES_OF_A_VERSION = 1 << 31
HEAD = "dl_checkpoint_head"
FILE_ROWS = ("dl_checkpoint_removes", "dl_checkpoint_files")
COLUMNS = (  # of a checkpoint, by the relation that fills them
    (HEAD, "protocol"),
    (HEAD, "metaData"),
    ("dl_checkpoint_txns", "txn"),
    ("dl_checkpoint_domains", "domainMetadata"),
    ("dl_checkpoint_removes", "remove"),
    ("dl_checkpoint_files", "add"),
)


def write_checkpoint(catalog: Catalog, engine: Any, snapshot: Snapshot, commit_ms: int, *, over: bool = False) -> bool:
    """Write the checkpoint of a snapshot's version, unless it is there, and point ``_last_checkpoint`` at it.

    Tombstones are kept for ``delta.deletedFileRetentionDuration`` before the commit's own time, so that the content
    depends on the rows alone. False when a checkpoint of that version was there. over: replace what is there.
    """
    relations = checkpoint_relations(catalog, snapshot, commit_ms)
    for name, rows in relations.items():
        engine.register(name, rows)
    try:
        if snapshot.configuration.get("delta.checkpointPolicy") == "v2":
            size, extra, written = _write_v2(engine, snapshot, relations, commit_ms, over)
        else:
            # a column of nothing costs as much to write as one of something, and readers take a missing one for it
            text = f"SELECT {_columns(relations, COLUMNS)} FROM ({checkpoint_rows(relations)})"
            hidden = _copy(engine, snapshot, text, _size(relations))
            size, extra = os.path.getsize(hidden), 0
            written = _put_file(snapshot, log.checkpoint_file(snapshot.version), hidden, over)
    finally:
        for name in relations:
            engine.unregister(name)
    if (sums := checksum.content(catalog, snapshot, relations)) is not None:
        _put(snapshot, log.checksum_file(snapshot.version), sums, over)
    if last_checkpoint(snapshot.location) > snapshot.version:
        return written
    adds = relations["dl_checkpoint_files"].num_rows
    actions = 1 + _size(relations) + extra
    last = {"version": snapshot.version, "size": actions, "sizeInBytes": size, "numOfAddFiles": adds}
    storage.replace(snapshot.location, log.LAST_CHECKPOINT, json.dumps(last, separators=(",", ":")).encode())
    return written


def _write_v2(
    engine: Any, snapshot: Snapshot, relations: Mapping[str, pa.Table], commit_ms: int, over: bool
) -> tuple[int, int, bool]:
    """(bytes, actions of its own, was it written?) of a V2 checkpoint under the classic name, which older readers find, and
    say why they cannot read it. Its files are in a sidecar, whose name comes from its content."""
    parts = statements.load("engine")
    rows = {name: relations[name] for name in relations if name in FILE_ROWS}
    text = parts["checkpoint_sidecar"].format(columns=_columns(rows, COLUMNS), rows=checkpoint_rows(rows))
    hidden = _copy(engine, snapshot, text, _size(rows))
    with open(hidden, "rb") as file:
        name = f"{uuid.UUID(hashlib.file_digest(file, 'md5').hexdigest())}.parquet"
    size = os.path.getsize(hidden)
    storage.make_directory(snapshot.location, log.SIDECARS)
    _put_file(snapshot, f"{log.SIDECARS}/{name}", hidden, over)
    sidecar = {"version": snapshot.version, "path": name, "size_in_bytes": size, "modification_time": commit_ms}
    engine.register("dl_checkpoint_sidecar", pa.Table.from_pylist([sidecar]))
    try:
        rest = {name: relations[name] for name in relations if name not in FILE_ROWS}
        hidden = _copy(engine, snapshot, parts["checkpoint_v2"].format(rows=checkpoint_rows(rest)), _size(rest))
    finally:
        engine.unregister("dl_checkpoint_sidecar")
    size += os.path.getsize(hidden)
    return size, 2, _put_file(snapshot, log.checkpoint_file(snapshot.version), hidden, over)


def _put_file(snapshot: Snapshot, path: str, hidden: str, over: bool) -> bool:
    if not over:
        return storage.put_file_if_absent(snapshot.location, path, hidden)
    storage.replace(snapshot.location, path, Path(hidden).read_bytes())
    storage.remove([hidden])
    return True


def _put(snapshot: Snapshot, path: str, content: bytes, over: bool) -> None:
    if over:
        storage.replace(snapshot.location, path, content)
    else:
        storage.put_if_absent(snapshot.location, path, content)


def _size(relations: Mapping[str, pa.Table]) -> int:
    return sum(int(rows.num_rows) for rows in relations.values())


def _columns(relations: Mapping[str, Any], wanted: Sequence[tuple[str, str]]) -> str:
    return ", ".join(f'"{column}"' for name, column in wanted if name in relations)


def checkpoint_rows(relations: Mapping[str, Any]) -> str:
    """SQL: the actions of these relations. The protocol's row comes first, since it gives the types."""
    parts = statements.load("engine")
    names = ["checkpoint_protocol", "checkpoint_metadata", *(name.removeprefix("dl_") for name in relations if name != HEAD)]
    return " UNION ALL ".join(parts[name] for name in names)


def _copy(engine: Any, snapshot: Snapshot, query: str, rows: int) -> str:
    """A local Parquet file of a query's rows, of which there are about so many."""
    hidden, query = storage.scratch(snapshot.location), query.rstrip(";")
    try:
        if rows <= BATCH:
            engine.execute(f"COPY ({query}) TO {literal(hidden)} (FORMAT parquet, COMPRESSION snappy)")
        else:
            _stream(engine, query, hidden)
    except (duckdb.Error, pa.ArrowException, OSError) as e:
        storage.remove([hidden])
        raise translate(e, snapshot.location) from e
    return hidden


def _stream(engine: Any, query: str, path: str) -> None:
    """Write a query's rows while it makes the next: for many that takes half the time of COPY, for few twice as long."""
    with (
        engine.sql(query).to_arrow_reader(BATCH) as batches,
        pq.ParquetWriter(path, batches.schema, store_schema=False) as file,
        ThreadPoolExecutor(1) as writer,
    ):
        written: Future[None] | None = None
        for batch in batches:
            if written is not None:
                written.result()
            written = writer.submit(file.write_batch, batch)
        if written is not None:
            written.result()


def sidecars(location: str, version: int) -> list[str]:
    """The sidecars that a checkpoint names, as paths below the table; none of a classic one, or of one that is not there.

    LogCorruptError when it cannot be read.
    """
    content = storage.read(location, log.checkpoint_file(version))
    if content is None:
        return []
    try:
        file = pq.ParquetFile(io.BytesIO(content))
        found = file.read(["sidecar"])["sidecar"].to_pylist() if "sidecar" in file.schema_arrow.names else []
    except (pa.ArrowException, OSError, ValueError, MemoryError) as e:
        way_out = f"lake.mirror.verify(table, ({version}, {version}), repair=True) writes it anew"
        raise LogCorruptError(f"{location}/{log.checkpoint_file(version)} cannot be read: {e}; {way_out}") from e
    return [f"{log.SIDECARS}/{os.path.basename(row['path'])}" for row in found if row is not None]


def _scope(snapshot: Snapshot) -> dict[str, int]:
    return {"table_id": snapshot.table_id, "version": snapshot.version}


def last_checkpoint(location: str) -> int:
    """The version that ``_last_checkpoint`` names; -1 when it names none that is there."""
    try:
        version = int(json.loads(storage.read(location, log.LAST_CHECKPOINT) or b"{}").get("version", -1))
    except (ValueError, TypeError, AttributeError, OverflowError):
        return -1
    return version if version >= 0 and storage.exists(location, log.checkpoint_file(version)) else -1


def checkpoint_relations(catalog: Catalog, snapshot: Snapshot, commit_ms: int) -> dict[str, pa.Table]:
    """What the checkpoint's SQL reads: the catalog's rows, as Arrow."""
    scope = _scope(snapshot)
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
    found = {HEAD: pa.table({k: pa.array([v], types.get(k, pa.string())) for k, v in head.items()})}
    ((removes, txns, domains),) = catalog.rows("checkpoint_kinds", table_id=snapshot.table_id)
    if txns:
        found["dl_checkpoint_txns"] = catalog.arrow("checkpoint_txns", **scope)
    if domains:
        found["dl_checkpoint_domains"] = catalog.arrow("checkpoint_domains", **scope)
    if removes:
        found["dl_checkpoint_removes"] = catalog.arrow("checkpoint_removes", **scope, since_ms=since)
    found["dl_checkpoint_files"] = _in_order(catalog.arrow("checkpoint_files", **scope))
    return found


def _in_order(files: pa.Table) -> pa.Table:
    """Files in the order they came. Nearly always they are, and to let the catalog sort them takes a fifth of the time."""
    came = files["version"].to_numpy() * FILES_OF_A_VERSION + files["action_order"].to_numpy()
    return files if (np.diff(came) > 0).all() else files.take(np.argsort(came, kind="stable"))
