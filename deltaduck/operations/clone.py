"""A shallow clone: a table of its own that begins with another table's files, where they are."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote as quote_path

import pyarrow as pa
import pyarrow.compute as pc

from deltaduck import clustering, storage
from deltaduck import snapshot as snapshots
from deltaduck.errors import StorageError, TableExistsError, UnsupportedFeatureError
from deltaduck.operations.create import create
from deltaduck.operations.files import version_files
from deltaduck.protocol.deletion_vectors import DeletionVector

if TYPE_CHECKING:
    from deltaduck.transaction import Transaction


def shallow_clone(tx: Transaction, name: str, source: str, version: int | None = None, timestamp: Any = None) -> dict[str, int]:
    """Stage a new table of the same rows. What is written to either later is not seen in the other; files that the clone
    needs stay when the source is vacuumed in this lake."""
    if tx.find(name) is not None:
        raise TableExistsError(f"table {name!r} exists already: drop it, or choose another name")
    snapshot = tx.find(source, version, timestamp)
    if snapshot is None:
        raise tx.lake.not_found(source)
    if snapshot.version < 0 or snapshot.table_id < 0 or tx.is_changed(snapshot):
        raise UnsupportedFeatureError(
            f"table {source!r} is not committed as it is: clone it after this transaction, or a version"
        )
    change = create(tx, name, snapshot.schema, snapshot.partition_columns, snapshot.configuration, snapshot.description)
    change.after = replace(change.after, protocol=snapshot.protocol)
    if columns := clustering.in_force(tx.lake.catalog, snapshot):
        change.clustering = columns
    files = version_files(tx.lake.catalog, snapshot, change.skip, snapshots.all_skip_columns(tx.lake.catalog, snapshot))
    if pc.any(pc.is_valid(files["deleted_ms"])).as_py():
        raise StorageError(f"table {source!r} version {snapshot.version} cannot be cloned: VACUUM has deleted files of it")
    change.needs.append((snapshot.table_id, files))
    files = _absolute(files, snapshot.location)
    tx.add(
        change,
        files.set_column(files.column_names.index("data_change"), "data_change", pa.array([True] * len(files), pa.bool_())),
        [],
    )
    change.foreign_files = True
    change.operation = "CLONE"
    change.parameters = {"source": snapshot.name, "sourceVersion": str(snapshot.version), "isShallow": "true"}
    return {"num_files": files.num_rows, "source_version": snapshot.version}


def _absolute(files: pa.Table, location: str) -> pa.Table:
    """Adds whose files, and those of their deletion vectors, have absolute names."""
    root = f"{quote_path(location, safe='/:@')}/"
    root = root if storage.is_remote(root) else f"file://{root}"
    paths = [p if p.startswith(("/", "file:")) or storage.is_remote(p) else root + p for p in files["path"].to_pylist()]
    files = files.set_column(files.column_names.index("path"), "path", pa.array(paths, pa.string()))
    beside = pc.fill_null(pc.equal(files["dv_storage_type"], "u"), False)
    encoded = pc.unique(files["dv_path_or_inline_dv"].filter(beside))  # one file may hold the vectors of many
    named = [root + quote_path(DeletionVector("u", text, None, 0, 0).path or "", safe="/=") for text in encoded.to_pylist()]
    place = pa.array(named, pa.string()).take(pc.index_in(files["dv_path_or_inline_dv"].combine_chunks(), encoded))
    offset = pc.coalesce(pc.binary_join_element_wise("@", files["dv_offset"].cast(pa.string()), ""), "")
    for column, value in (
        ("dv_storage_type", "p"),
        ("dv_path_or_inline_dv", place),
        ("dv_id", pc.binary_join_element_wise("p", place, offset.combine_chunks(), "")),
    ):
        at = files.column_names.index(column)
        files = files.set_column(at, column, pc.if_else(beside, value, files[column]))
    return files
