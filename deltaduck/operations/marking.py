"""Taking rows out by deletion vectors: a file keeps its bytes, and its add says which of its rows are gone.

Protocol: https://github.com/delta-io/delta/blob/master/PROTOCOL.md#deletion-vectors
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from deltaduck import deletions, storage
from deltaduck.changes import Change
from deltaduck.operations.files import as_adds
from deltaduck.protocol.deletion_vectors import file_of
from deltaduck.protocol.features import DELETION_VECTORS, is_on
from deltaduck.snapshot import Snapshot

if TYPE_CHECKING:
    from deltaduck.operations.merge import Effect, Found
    from deltaduck.transaction import Transaction

FILE = 1 << 40  # a row's place is the index of its file times this, plus its position there


def is_wanted(snapshot: Snapshot) -> bool:
    """Does the table ask for deletion vectors?"""
    return is_on(snapshot.configuration, DELETION_VECTORS)


def mark(tx: Transaction, change: Change, found: Found, effect: Effect) -> list[tuple[int, int]]:
    """Stage deletion vectors for committed files that lose some of their rows.

    What of `found.touched` is left to `rewrite`: files that lose every row, that this transaction itself has added, or whose
    number of rows is not known; all of them where the table does not ask for deletion vectors.
    """
    touched = list(found.touched)
    if not touched or not is_wanted(change.after):
        return touched
    files = found.files.take(pa.array([file for file, _ in touched], pa.int64()))
    known, rows, dead = (files[name].to_numpy() for name in ("version", "num_records", "dv_cardinality"))  # NaN for NULL
    chosen = np.flatnonzero(~np.isnan(known) & (np.array([lost for _, lost in touched]) < rows - np.nan_to_num(dead)))
    if not len(chosen):
        return touched
    if len(chosen) < len(touched):
        files = files.take(pa.array(chosen))
    _exchange(tx, change, files, _positions(found, [touched[i][0] for i in chosen]))
    effect.files_added += files.num_rows
    effect.files_removed += files.num_rows
    kept = {*chosen.tolist()}
    return [t for i, t in enumerate(touched) if i not in kept]


def _positions(found: Found, files: Sequence[int]) -> list[Any]:
    """For each of these files, the rows of it that go."""
    places = found.places()
    starts = np.array(files, np.int64) * FILE
    bounds = zip(np.searchsorted(places, starts), np.searchsorted(places, starts + FILE), strict=True)
    return [(places[a:b] % FILE).astype(np.uint64) for a, b in bounds]


def _exchange(tx: Transaction, change: Change, files: pa.Table, rows: Sequence[Any]) -> None:
    """Stage the same files with these rows deleted too."""
    location = change.after.location
    known = deletions.vectors(location, files)
    name, content, vectors = file_of([np.union1d(old, new) if len(old) else new for old, new in zip(known, rows, strict=True)])
    storage.put_if_absent(location, name, content)
    tx.remove(change, files, told=True)
    tx.add(change, deletions.with_vectors(as_adds(files), vectors), [storage.join(location, name)], told=True)
    change.adds_again(files)
