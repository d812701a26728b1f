"""Files that a table has already, as adds of another commit: restored, cloned, or with other rows deleted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from deltaduck import snapshot as snapshots
from deltaduck.catalog import Catalog
from deltaduck.changes import INDEXED, Change, removal
from deltaduck.parquet import ARROW_INDEX
from deltaduck.protocol import row_tracking
from deltaduck.protocol.stats import SkipColumn
from deltaduck.snapshot import KEY, Snapshot, in_order

if TYPE_CHECKING:
    from deltaduck.transaction import Transaction


def version_files(catalog: Catalog, snapshot: Snapshot, wanted: Sequence[SkipColumn], held: Sequence[SkipColumn]) -> pa.Table:
    """The files of a snapshot as adds, in the order they came: those of `parquet.write_files`, with all that an add may say,
    and `deleted_ms`. The files of an old version may be deleted.

    wanted: the index that they go into; held: the index of the snapshot's own table, whose values it takes over."""
    index = "".join(f", s.{old} AS {new}" for old, new in _index_columns(catalog, snapshot, wanted, held))
    sql = catalog.sql("version_files").format(index=index, source_id=snapshot.table_id)
    found = catalog.fetch_arrow(sql, {"table_id": snapshot.table_id, "version": snapshot.version})
    return _typed(in_order(found).drop_columns(KEY), wanted)


def as_adds(files: pa.Table) -> pa.Table:
    """The same of files of the table itself, as `snapshot.files` has found them: the index has them already."""
    for key, indexed in zip(KEY, INDEXED, strict=True):
        place = files[indexed] if files[indexed].null_count == 0 else pc.coalesce(files[indexed], files[key])
        files = files.set_column(files.column_names.index(indexed), indexed, place)
    return files.drop_columns(KEY)


def _typed(adds: pa.Table, wanted: Sequence[SkipColumn]) -> pa.Table:
    """Adds whose index columns have their types: SQLite has none where all values are NULL."""
    kinds = {name: ARROW_INDEX[kind] for c in wanted for name, kind in c.definitions()}
    columns = zip(adds.column_names, adds.columns, strict=True)
    return pa.table({n: c if c.type == kinds.get(n, c.type) else c.cast(kinds[n]) for n, c in columns})


def _index_columns(
    catalog: Catalog, snapshot: Snapshot, wanted: Sequence[SkipColumn], held: Sequence[SkipColumn]
) -> list[tuple[str, str]]:
    """The columns of a table's index that another one takes over, and their names there."""
    by_column = {(c.path, c.type, c.is_partition): c for c in held}
    real = {name for c in snapshots.all_skip_columns(catalog, snapshot) for name, _ in c.definitions()}
    return [
        (old, new)
        for c in wanted
        if (source := by_column.get((c.path, c.type, c.is_partition))) is not None
        for (old, _), (new, _) in zip(source.definitions(), c.definitions(), strict=True)
        if old in real
    ]


def give_row_ids(tx: Transaction, change: Change) -> None:
    """Where a table begins to track rows: add its files again, so that this commit gives them row ids."""
    base = change.base
    before, after = (s is not None and row_tracking.gives_ids(s.protocol, s.configuration) for s in (base, change.after))
    if base is None or before or not after:
        return
    files, adds = committed_files(tx, change)
    if files.num_rows:
        add_again(change, adds, files)


def committed_files(tx: Transaction, change: Change) -> tuple[pa.Table, pa.Table]:
    """The files that a table has and that were not staged by this transaction: as they are found, and as adds."""
    files = tx.files(change)
    files = snapshots.having(files, "version")
    if change.base is None or not files.num_rows:
        return files.slice(0, 0), files.slice(0, 0)
    return files, as_adds(files)


def add_again(change: Change, adds: pa.Table, files: pa.Table) -> None:
    """Stage adds of files that the table has already: they take the place of those before, and no row changes."""
    again = adds.column_names.index("data_change")
    change.adds.append(adds.set_column(again, "data_change", pa.repeat(False, adds.num_rows)))
    change.removes.append(removal(files, None).append_column("again", adds["path"]))
    change.adds_again(files)
