"""Delta tables written by hand, for what no library at hand can write."""

from __future__ import annotations

import json
import struct
import uuid
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from deltaduck.protocol.deletion_vectors import serialize, z85_encode

Action = dict[str, Any]


def field(name: str, type_: Any, nullable: bool = True, **metadata: Any) -> dict[str, Any]:
    """A field of a schema; mapped_id and physical say how a mapped one is called in the data files."""
    if "physical" in metadata:
        names = {
            "delta.columnMapping.physicalName": metadata.pop("physical"),
            "delta.columnMapping.id": metadata.pop("mapped_id", 1),
        }
        metadata = names | metadata
    return {"name": name, "type": type_, "nullable": nullable, "metadata": metadata}


def struct_of(*fields: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "struct", "fields": list(fields)}


def protocol(reader: int = 1, writer: int = 2, *features: str, writer_features: Sequence[str] | None = None) -> Action:
    """With features: reader and writer list them, the writer also its own."""
    body: dict[str, Any] = {"minReaderVersion": reader, "minWriterVersion": writer}
    if reader == 3:
        body["readerFeatures"] = list(features)
    if writer == 7:
        body["writerFeatures"] = [*features, *(writer_features or ())]
    return {"protocol": body}


def metadata(*fields: Mapping[str, Any], partition_by: Sequence[str] = (), **configuration: str) -> Action:
    return {
        "metaData": {
            "id": "11111111-2222-3333-4444-555555555555", "format": {"provider": "parquet", "options": {}},
            "schemaString": json.dumps(struct_of(*fields)), "partitionColumns": list(partition_by),
            "configuration": {f"delta.{key.replace('__', '.')}": value for key, value in configuration.items()},
            "createdTime": 1_700_000_000_000,
        }
    }  # fmt: skip


def add(
    root: Path, path: str, rows: pa.Table | None = None, *, partition: Mapping[str, Any] | None = None, **extra: Any
) -> Action:
    """An add action, and its data file when rows are given."""
    file = root / unquote(path)
    if rows is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(rows, file)
        extra.setdefault("stats", json.dumps({"numRecords": rows.num_rows}))
    size = file.stat().st_size if file.exists() else 100
    body = {"path": path, "partitionValues": dict(partition or {}), "size": size, "modificationTime": 1_700_000_000_000}
    return {"add": {**body, "dataChange": True, **extra}}


def remove(path: str, **extra: Any) -> Action:
    return {"remove": {"path": path, "deletionTimestamp": 1_700_000_000_001, "dataChange": True, **extra}}


def info(operation: str = "WRITE", ms: int = 1_700_000_000_000, **extra: Any) -> Action:
    return {"commitInfo": {"timestamp": ms, "operation": operation, "operationParameters": {}, **extra}}


def commit(root: Path, version: int, *actions: Action) -> Path:
    """Write a JSON commit."""
    file = root / "_delta_log" / f"{version:020d}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(action, ensure_ascii=False) + "\n" for action in actions), encoding="utf-8")
    return file


def inline_vector(rows: Sequence[int]) -> dict[str, Any]:
    """The descriptor of a deletion vector that stands in the log itself."""
    data = serialize(np.array(rows, np.uint64))
    padded = data + b"\0" * (-len(data) % 4)
    return {"storageType": "i", "pathOrInlineDv": z85_encode(padded), "sizeInBytes": len(data), "cardinality": len(rows)}


def vector_file(root: Path, *vectors: Sequence[int], prefix: str = "", absolute: bool = False) -> list[dict[str, Any]]:
    """A file of deletion vectors below the table, and the descriptors of what is in it."""
    name = uuid.uuid4()
    file = root / prefix / f"deletion_vector_{name}.bin"
    file.parent.mkdir(parents=True, exist_ok=True)
    content, found = b"\x01", []
    for rows in vectors:
        data = serialize(np.array(rows, np.uint64))
        place = {"storageType": "p", "pathOrInlineDv": str(file)} if absolute else {
            "storageType": "u", "pathOrInlineDv": prefix + z85_encode(name.bytes),
        }  # fmt: skip
        found.append({**place, "offset": len(content), "sizeInBytes": len(data), "cardinality": len(rows)})
        content += struct.pack(">I", len(data)) + data + struct.pack(">I", zlib.crc32(data))
    file.write_bytes(content)
    return found


CHECKPOINT = pa.schema(
    {
        "txn": pa.struct({"appId": pa.string(), "version": pa.int64(), "lastUpdated": pa.int64()}),
        "add": pa.struct({
            "path": pa.string(), "partitionValues": pa.map_(pa.string(), pa.string()), "size": pa.int64(),
            "modificationTime": pa.int64(), "dataChange": pa.bool_(), "stats": pa.string(),
        }),
        "remove": pa.struct({"path": pa.string(), "deletionTimestamp": pa.int64(), "dataChange": pa.bool_()}),
        "metaData": pa.struct({
            "id": pa.string(), "format": pa.struct({"provider": pa.string(), "options": pa.map_(pa.string(), pa.string())}),
            "schemaString": pa.string(), "partitionColumns": pa.list_(pa.string()),
            "configuration": pa.map_(pa.string(), pa.string()), "createdTime": pa.int64(),
        }),
        "protocol": pa.struct({
            "minReaderVersion": pa.int32(), "minWriterVersion": pa.int32(), "readerFeatures": pa.list_(pa.string()),
            "writerFeatures": pa.list_(pa.string()),
        }),
        "checkpointMetadata": pa.struct({"version": pa.int64()}),
        "sidecar": pa.struct({"path": pa.string(), "sizeInBytes": pa.int64(), "modificationTime": pa.int64()}),
    }
)  # fmt: skip


def checkpoint_rows(*actions: Action) -> pa.Table:
    """Actions as the rows of a Parquet checkpoint."""

    def as_map(body: Any) -> Any:
        maps = ("partitionValues", "configuration", "options")
        if not isinstance(body, dict):
            return body
        return {k: list(v.items()) if k in maps and isinstance(v, dict) else as_map(v) for k, v in body.items()}

    return pa.Table.from_pylist([as_map(action) for action in actions], CHECKPOINT)


def checkpoint(root: Path, version: int, *actions: Action, part: tuple[int, int] | None = None) -> Path:
    """Write a classic checkpoint, or a part of one."""
    name = f"{version:020d}.checkpoint" + ("" if part is None else f".{part[0]:010d}.{part[1]:010d}") + ".parquet"
    file = root / "_delta_log" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(checkpoint_rows(*actions), file)
    return file


def checkpoint_v2(
    root: Path, version: int, *actions: Action, sidecars: Sequence[Sequence[Action]] = (), kind: str = "json"
) -> Path:
    """Write a V2 checkpoint: its top-level file holds `actions`, each sidecar its own."""
    log = root / "_delta_log"
    (log / "_sidecars").mkdir(parents=True, exist_ok=True)
    rows: list[Action] = [{"checkpointMetadata": {"version": version}}, *actions]
    for held in sidecars:
        name = f"{uuid.uuid4()}.parquet"
        pq.write_table(checkpoint_rows(*held).select(["add", "remove"]), log / "_sidecars" / name)
        rows.append({"sidecar": {"path": name, "sizeInBytes": (log / "_sidecars" / name).stat().st_size, "modificationTime": 1}})
    file = log / f"{version:020d}.checkpoint.{uuid.uuid4()}.{kind}"
    if kind == "json":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        pq.write_table(checkpoint_rows(*rows), file)
    return file
