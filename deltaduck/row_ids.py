"""Row ids are given out by the commit that adds a file: under the table's lock, so that appends need not agree before."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deltaduck.catalog import Catalog
from deltaduck.errors import UnsupportedFeatureError
from deltaduck.protocol.row_tracking import DOMAIN, HIGH_WATER_MARK

IDS = ("base_row_id", "default_row_commit_version")


def assigned(catalog: Catalog, name: str, table_id: int, version: int, adds: pa.Table) -> tuple[pa.Table, str | None]:
    """The adds with a first row id each; and the configuration of the domain, where that changes."""
    base, since = _held(adds)
    new = pc.is_null(base)
    if pc.any(pc.and_(new, pc.is_null(adds["num_records"]))).as_py():
        raise UnsupportedFeatureError(
            f"table {name!r} cannot track its rows: a file does not say how many it has (numRecords); write it anew first, as "
            "UPDATE does"
        )
    held = _high_water_mark(catalog, table_id)
    counts = np.where(_array(new, bool), _array(pc.fill_null(adds["num_records"], 0), np.int64), 0)
    starts = pa.array(held + 1 + np.cumsum(counts) - counts, pa.int64())
    base = pc.if_else(new, starts, base)
    ends = pc.max(pc.add(base, pc.fill_null(adds["num_records"], 0))).as_py() or 0
    adds = _with(adds, base, pc.fill_null(since, version))
    highest = max(held + int(counts.sum()), ends - 1)
    return adds, json.dumps({HIGH_WATER_MARK: highest}, separators=(",", ":")) if highest > held else None


def known(catalog: Catalog, table_id: int, adds: pa.Table) -> pa.Table:
    """Adds of files that were there before: those that have no row ids any more, and had some, get them back."""
    base, since = _held(adds)
    if not base.null_count:
        return adds
    held = catalog.arrow("known_row_ids", table_id=table_id)
    place = pc.index_in(adds["path"], held["path"].combine_chunks())
    found = (held[name].cast(pa.int64()).combine_chunks().take(place.combine_chunks()) for name in IDS)
    return _with(adds, *(pc.coalesce(values, pa.chunked_array([f])) for values, f in zip((base, since), found, strict=True)))


def _held(adds: pa.Table) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    nothing = pa.chunked_array([pa.nulls(adds.num_rows, pa.int64())])
    base, since = (adds[name] if name in adds.column_names else nothing for name in IDS)
    return base, since


def _with(adds: pa.Table, *ids: pa.ChunkedArray) -> pa.Table:
    adds = adds.drop_columns([name for name in IDS if name in adds.column_names])
    for name, values in zip(IDS, ids, strict=True):
        adds = adds.append_column(name, values)
    return adds


def _high_water_mark(catalog: Catalog, table_id: int) -> int:
    rows = catalog.rows("domain_in_force", table_id=table_id, domain=DOMAIN)
    if rows and not rows[0][1]:
        return int(json.loads(rows[0][0])[HIGH_WATER_MARK])
    ((highest,),) = catalog.rows("highest_row_id", table_id=table_id)
    return -1 if highest is None else int(highest)


def _array(values: pa.Array | pa.ChunkedArray, kind: type) -> np.ndarray:
    return np.asarray(values.to_numpy(zero_copy_only=False) if isinstance(values, pa.Array) else values.to_numpy(), kind)
