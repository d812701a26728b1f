"""Version checksums: what a reader may compare with what it has found.

They are written beside checkpoints, where all rows of the state are at hand. For every commit they would cost each append a
second file, and sums over the table that nothing else needs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from deltaduck.catalog import Catalog
from deltaduck.snapshot import Snapshot


def content(catalog: Catalog, snapshot: Snapshot, relations: Mapping[str, pa.Table]) -> bytes | None:
    """The version checksum: what a reader may compare with what it has found. None where a part of it is not known."""
    files, ((timestamp,),) = (
        relations["dl_checkpoint_files"],
        catalog.rows("in_commit_timestamp", table_id=snapshot.table_id, version=snapshot.version),
    )
    in_commit = snapshot.configuration.get("delta.enableInCommitTimestamps", "false").lower() == "true"
    if in_commit and timestamp is None:
        return None
    head = relations["dl_checkpoint_head"].to_pylist()[0]
    metadata = {
        "id": head["id"], "name": head["name"], "description": head["description"],
        "format": {"provider": "parquet", "options": {}}, "schemaString": head["schema_string"],
        "partitionColumns": list(snapshot.partition_columns), "configuration": dict(sorted(snapshot.configuration.items())),
        "createdTime": head["created_time"],
    }  # fmt: skip
    p = snapshot.protocol
    protocol = {
        "minReaderVersion": p.min_reader_version, "minWriterVersion": p.min_writer_version,
        "readerFeatures": p.reader_features, "writerFeatures": p.writer_features,
    }  # fmt: skip
    txns, domains = relations.get("dl_checkpoint_txns"), relations.get("dl_checkpoint_domains")
    applications = [] if txns is None else txns.to_pylist()
    said = {
        "tableSizeBytes": pc.sum(files["size"]).as_py() or 0, "numFiles": files.num_rows, "numMetadata": 1, "numProtocol": 1,
        "inCommitTimestampOpt": timestamp if in_commit else None,
        "setTransactions": [
            _given({"appId": t["app_id"], "version": t["app_version"], "lastUpdated": t["last_updated"]}) for t in applications
        ],
        "domainMetadata": [
            {"domain": d["domain"], "configuration": d["configuration"], "removed": False}
            for d in ([] if domains is None else domains.to_pylist())
        ],
        "metadata": _given(metadata), "protocol": _given(protocol),
    }  # fmt: skip
    return json.dumps(_given(said), ensure_ascii=False, separators=(",", ":")).encode()


def _given(members: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in members.items() if v is not None}
