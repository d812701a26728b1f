"""Deleted rows of a snapshot's files, where a scan can join with them.

A query may run long after it was planned, on any connection: the rows stand in a Parquet file of this process's own.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
import uuid
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from deltaduck import storage
from deltaduck.errors import LogCorruptError
from deltaduck.protocol.deletion_vectors import DeletionVector

KEPT = 256  # results, for queries that read the same files again
_known: dict[tuple[str, tuple[tuple[int, str], ...]], str] = {}


def of(location: str, files: pa.Table) -> str | None:
    """A Parquet file of the rows of `files` that are deleted: dl_file (the place in `files`) and dl_row; None without any.

    LogCorruptError when a deletion vector is missing or damaged: its file must not be read as if it had none.
    """
    if "dv_storage_type" not in files.column_names:
        return None
    places = np.flatnonzero(pc.is_valid(files["dv_storage_type"]).to_numpy(zero_copy_only=False))
    if not len(places):
        return None
    rows = files.take(places).select(["dv_id", *COLUMNS]).to_pylist()
    key = location, tuple(zip(places.tolist(), (row["dv_id"] for row in rows), strict=True))
    if key not in _known:
        contents: dict[str, bytes] = {}
        found = [_rows(location, row, contents) for row in rows]
        counts = [len(numbers) for numbers in found]
        table = pa.table(
            {"dl_file": np.repeat(places.astype(np.uint64), counts), "dl_row": np.concatenate(found).astype(np.int64)},
        )
        name = f"{_directory()}/{uuid.uuid4().hex}.parquet"
        pq.write_table(table, name)
        if len(_known) >= KEPT:
            _known.clear()
        _known[key] = name
    return _known[key]


COLUMNS = ("dv_storage_type", "dv_path_or_inline_dv", "dv_offset", "dv_size_in_bytes", "dv_cardinality")


def _rows(location: str, row: Mapping[str, Any], contents: dict[str, bytes]) -> Any:
    vector = DeletionVector(*(row[name] for name in COLUMNS))
    path = vector.path
    if path is None:
        return vector.rows(None)
    if path not in contents:
        data = storage.read(location, path)
        if data is None:
            raise LogCorruptError(f"the deletion vector file {path} of the table at {location} is missing")
        contents[path] = data
    return vector.rows(contents[path])


@cache
def _directory() -> str:
    directory = tempfile.mkdtemp(prefix="deltaduck-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return directory
