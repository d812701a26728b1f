"""Deleted rows of a snapshot's files, where a scan can join with them.

A query may run long after it was planned, on any connection: the rows stand in a Parquet file of this process's own.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
    key = location, tuple(zip(places.tolist(), files["dv_id"].take(places).to_pylist(), strict=True))
    if key not in _known:
        if len(_known) >= KEPT:
            _known.clear()
        _known[key] = _write(places, vectors(location, files.take(places)))
    return _known[key]


def between(location: str, before: pa.Table, after: pa.Table) -> str:
    """The same, of the rows that files hide in `after` and did not hide in `before`: the same files in the same order."""
    pairs = zip(vectors(location, before), vectors(location, after), strict=True)
    return _write(np.arange(before.num_rows), (np.setdiff1d(new, old, assume_unique=True) for old, new in pairs))


def vectors(location: str, files: pa.Table) -> Iterator[Any]:
    """The deleted rows of each file, as arrays."""
    found = [
        None if row["dv_storage_type"] is None else DeletionVector(*(row[name] for name in COLUMNS))
        for row in files.select(COLUMNS).to_pylist()
    ]
    paths = list(dict.fromkeys(path for v in found if v is not None and (path := v.path) is not None))
    contents = dict(zip(paths, storage.read_each(location, paths), strict=True))
    return (_rows(location, vector, contents) for vector in found)


def with_vectors(adds: pa.Table, vectors: Sequence[DeletionVector]) -> pa.Table:
    """Adds of the same files under these vectors. Bounds of their statistics may belong to a row that is deleted."""
    new = {
        "dv_id": pa.array([v.unique_id for v in vectors], pa.string()),
        "dv_storage_type": pa.array([v.storage_type for v in vectors], pa.string()),
        "dv_path_or_inline_dv": pa.array([v.path_or_inline for v in vectors], pa.string()),
        "dv_offset": pa.array([v.offset for v in vectors], pa.int64()),
        "dv_size_in_bytes": pa.array([v.size_in_bytes for v in vectors], pa.int64()),
        "dv_cardinality": pa.array([v.cardinality for v in vectors], pa.int64()),
        "data_change": pa.repeat(True, len(vectors)),
        "stats": pa.array([loosened(text) for text in adds["stats"].to_pylist()], pa.string()),
    }
    for column, values in new.items():
        adds = adds.set_column(adds.column_names.index(column), column, values)
    return adds


def loosened(stats: str | None) -> str | None:
    """Statistics of a file of which a row may be deleted that has the least or the greatest value."""
    if stats is None or '"tightBounds":false' in stats:
        return stats
    if '"tightBounds":true' in stats:
        return stats.replace('"tightBounds":true', '"tightBounds":false')
    return '{"tightBounds":false,' + stats.lstrip().removeprefix("{")


def forget() -> None:
    """Delete the rows that stand for scans of this process: none of them is going to run again."""
    while _known:
        os.unlink(_known.popitem()[1])


def _write(places: Any, rows: Iterable[Any]) -> str:
    """Store the rows of one file after another: only one file's are in memory."""
    name = f"{_directory()}/{uuid.uuid4().hex}.parquet"
    with pq.ParquetWriter(name, SCHEMA) as out:
        for place, numbers in zip(places.tolist(), rows, strict=True):
            for start in range(0, len(numbers), CHUNK):
                some = numbers[start : start + CHUNK].view(np.int64)
                out.write_table(pa.table([pa.repeat(pa.scalar(place, pa.uint64()), len(some)), some], schema=SCHEMA))
    return name


SCHEMA = pa.schema({"dl_file": pa.uint64(), "dl_row": pa.int64()})
CHUNK = 1 << 20
COLUMNS = ["dv_storage_type", "dv_path_or_inline_dv", "dv_offset", "dv_size_in_bytes", "dv_cardinality"]


def _rows(location: str, vector: DeletionVector | None, contents: Mapping[str, bytes | None]) -> Any:
    if vector is None:
        return np.empty(0, np.uint64)
    if (path := vector.path) is None:
        return vector.rows(None)
    if (data := contents[path]) is None:
        raise LogCorruptError(f"the deletion vector file {path} of the table at {location} is missing")
    return vector.rows(data)


@cache
def _directory() -> str:
    directory = tempfile.mkdtemp(prefix="deltaduck-")
    atexit.register(_remove, directory, os.getpid())
    return directory


def _remove(directory: str, owner: int) -> None:
    if os.getpid() == owner:  # a forked child ends sooner
        shutil.rmtree(directory, ignore_errors=True)
