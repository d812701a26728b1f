"""Files that a table has already, as adds of another commit: restored, cloned, or with other rows deleted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from deltaduck import snapshot as snapshots
from deltaduck.catalog import Catalog
from deltaduck.changes import Change
from deltaduck.protocol import row_tracking
from deltaduck.protocol.stats import SkipColumn
from deltaduck.snapshot import Snapshot

if TYPE_CHECKING:
    from deltaduck.transaction import Transaction


def version_files(
    catalog: Catalog, snapshot: Snapshot, wanted: Sequence[SkipColumn], held: Sequence[SkipColumn], only: pa.Table | None = None
) -> pa.Table:
    """The files of a snapshot as adds, in the order they came: those of `parquet.write_files`, with all that an add may say.

    wanted: the index that they go into; held: the index of the snapshot's own table, whose values it takes over.
    only: (version, action_order) of some of them."""
    by_column = {(c.path, c.type, c.is_partition): c for c in held}
    names = [
        (old, new)
        for c in wanted
        if (source := by_column.get((c.path, c.type, c.is_partition))) is not None
        for (old, _), (new, _) in zip(source.definitions(), c.definitions(), strict=True)
    ]
    real = {name for c in snapshots.all_skip_columns(catalog, snapshot) for name, _ in c.definitions()}
    index = "".join(f", s.{old} AS {new}" for old, new in names if old in real)
    sql = catalog.sql("version_files").format(index=index, source_id=snapshot.table_id, only=_among(only))
    found = catalog.fetch_arrow(sql, {"table_id": snapshot.table_id, "version": snapshot.version})
    return found.sort_by([("version", "ascending"), ("action_order", "ascending")]).drop_columns(["version", "action_order"])


def give_row_ids(tx: Transaction, change: Change) -> None:
    """Where a table begins to track rows: add its files again, so that this commit gives them row ids."""
    base = change.base
    before, after = (s is not None and row_tracking.gives_ids(s.protocol, s.configuration) for s in (base, change.after))
    if base is None or before or not after:
        return
    keys, adds = committed_files(tx, change)
    if keys.num_rows:
        add_again(change, adds, keys)


def committed_files(tx: Transaction, change: Change) -> tuple[pa.Table, pa.Table]:
    """The files that a table has and that were not staged by this transaction: (version, action_order) of each, and adds."""
    files = tx.files(change)
    keys = files.filter(pc.is_valid(files["version"])).select(["version", "action_order"])
    if change.base is None or not keys.num_rows:
        return keys.slice(0, 0), keys.slice(0, 0)
    return keys, version_files(tx.lake.catalog, change.base, change.skip, change.known, keys if change.removes else None)


def add_again(change: Change, adds: pa.Table, keys: pa.Table) -> None:
    """Stage adds of files that the table has already: they take the place of those before, and no row changes."""
    assert change.base is not None
    again = adds.column_names.index("data_change")
    change.adds.append(adds.set_column(again, "data_change", pa.repeat(False, adds.num_rows)))
    removes = keys.append_column("data_change", pa.nulls(keys.num_rows, pa.bool_()))
    change.removes.append(removes.append_column("again", adds["path"]))
    if pc.min(keys["version"]).as_py() < change.base.uniform_since:
        change.keeps_foreign_files()


def _among(keys: pa.Table | None) -> str:
    if keys is None:
        return ""
    pairs = zip(keys["version"].to_pylist(), keys["action_order"].to_pylist(), strict=True)
    return f" AND (a.version, a.action_order) IN (VALUES {', '.join(f'({int(v)}, {int(o)})' for v, o in pairs)})"
