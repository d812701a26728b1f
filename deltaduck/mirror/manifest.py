"""Manifests: which files a table is made of, for engines that read lists of names (Presto's and Hive's symlink format)."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa

from deltaduck import add_actions, storage
from deltaduck.errors import UnsupportedFeatureError
from deltaduck.snapshot import Snapshot

FOLDER = "_symlink_format_manifest"
ESCAPED = "\"#%'*/:=?\\{[]^\x7f"


def write(connection: Any, snapshot: Snapshot, files: pa.Table) -> None:
    """Write the manifests of a version, one per partition; those of partitions that are gone are deleted."""
    if not add_actions.is_plain(snapshot, files):
        raise UnsupportedFeatureError(
            f"table {snapshot.name!r} uses column mapping, deletion vectors or variants: a list of its files does not say what "
            "its rows are, and no manifest can be written"
        )
    partitions = [json.loads(text) for text in files["partition_values"].to_pylist()]
    found: dict[str, list[str]] = {} if snapshot.partition_columns else {FOLDER: []}
    for values, name in zip(partitions, add_actions.file_uris(connection, snapshot, files), strict=True):
        found.setdefault("/".join([FOLDER, *(f"{key}={_directory(v)}" for key, v in values.items())]), []).append(name)
    for place in dict.fromkeys("/".join(path[:i]) for path in (p.split("/") for p in found) for i in range(1, len(path) + 1)):
        storage.make_directory(snapshot.location, place)
    for place, names in found.items():
        storage.replace(snapshot.location, f"{place}/manifest", "".join(f"{name}\n" for name in names).encode())
    known = [path for path in storage.list_files(snapshot.location) if path.startswith(f"{FOLDER}/")]
    storage.delete(snapshot.location, [path for path in known if path.removesuffix("/manifest") not in found])


def _directory(value: str | None) -> str:
    """A partition's value as Hive names directories."""
    if not value:
        return "__HIVE_DEFAULT_PARTITION__"
    return "".join(f"%{ord(c):02X}" if c < " " or c in ESCAPED else c for c in value)
