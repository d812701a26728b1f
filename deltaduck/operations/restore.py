"""A table as it was: files of an old version come back, files since then go. Nothing is copied."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from deltaduck import clustering, identity, storage
from deltaduck import snapshot as snapshots
from deltaduck.changes import Change
from deltaduck.errors import StorageError, UnsupportedFeatureError
from deltaduck.operations import change_data
from deltaduck.operations.alter import begin
from deltaduck.operations.create import index_columns
from deltaduck.operations.files import version_files
from deltaduck.predicate import Condition
from deltaduck.protocol import mapping
from deltaduck.protocol.features import with_features, writer_features
from deltaduck.snapshot import NEVER_UNIFORM, Snapshot

if TYPE_CHECKING:
    from deltaduck.transaction import Transaction

SHOWN = 10  # missing files that an error lists


def restore(
    tx: Transaction, table: str, target: int | dt.datetime | dt.date | str, *,
    ignore_missing_files: bool = False, protocol_downgrade_allowed: bool = False,
) -> dict[str, int]:  # fmt: skip
    """Stage the state of a version, or of a time; deltalake's metrics. Rows, schema, partitioning and properties are those of
    then; the protocol is the newer one, unless told. StorageError lists files that VACUUM has deleted."""
    change = begin(tx, table)
    lake = tx.lake
    if change.base is None:
        raise UnsupportedFeatureError(f"table {table!r} is not committed yet: it has no version to be restored to")
    version = target if isinstance(target, int) else snapshots.version_at(lake.catalog, table, target)
    then = snapshots.load(lake.catalog, table, version)
    now = tx.visible(change.after)
    protocol = then.protocol
    if not protocol_downgrade_allowed:
        protocol = with_features(change.after.protocol, writer_features(protocol))
    configuration = mapping.counted(then.configuration, change.after.configuration)
    schema = identity.marked_since(then.schema, change.after.schema)
    after = replace(
        change.after, schema=schema, partition_columns=then.partition_columns, configuration=configuration,
        description=then.description, protocol=protocol, uniform_since=NEVER_UNIFORM,
    )  # fmt: skip
    change = change.restaged(after, index_columns(after, [*change.known, *change.skip]))
    if (columns := clustering.in_force(lake.catalog, then)) != clustering.current(lake.catalog, change):
        change.clustering = columns
    wanted = version_files(lake.catalog, then, change.skip, change.known)
    back = _without(wanted, now)
    if missing := _missing(then, back):
        if not ignore_missing_files:
            shown = ", ".join(missing[:SHOWN])
            raise StorageError(
                f"table {table!r} cannot be restored to version {version}: {len(missing)} of its files are deleted: {shown}"
                f"{', ...' if len(missing) > SHOWN else ''}; nothing was changed; ignore_missing_files=True restores the others"
            )
        back = back.filter(pc.invert(pc.is_in(back["path"], pa.array(missing, pa.string()))))
    gone = _without(now, wanted)
    tx.stage(change)
    back = _without(back, _not_removed(tx, change, back))
    change_data.tell_dropped(tx, change, gone)
    tx.remove(change, gone)
    if back.num_rows:
        change.needs.append((then.table_id, back))
    tx.add(change, back.set_column(back.column_names.index("data_change"), "data_change", pa.array([True] * len(back))), [])
    change.reads.append(Condition())
    change.foreign_files = bool(back.num_rows)
    if change.base is not None:
        change.operation = "RESTORE"
        change.parameters = {"version": str(version)} if isinstance(target, int) else {"timestamp": str(target)}
    return {"numRemovedFile": gone.num_rows, "numRestoredFile": back.num_rows}


def _not_removed(tx: Transaction, change: Change, back: pa.Table) -> pa.Table:
    """Files that this very transaction took out, and that come back: they stay, for a commit does not remove and add one file."""
    removed = change.removed_keys()
    if change.base is None or removed is None:
        return back.slice(0, 0)
    files = snapshots.files(tx.lake.catalog, change.base).join(
        removed.select(snapshots.KEY), snapshots.KEY, join_type="left semi"
    )
    files = _without(files, _without(files, back))
    change_data.tell_returned(tx, change, files)
    change.removes = [r.join(files.select(snapshots.KEY), snapshots.KEY, join_type="left anti") for r in change.removes]
    return files


def _without(files: pa.Table, others: pa.Table) -> pa.Table:
    """The files that are not among the others; a file with another deletion vector is another file."""
    keys = ["path", "dv_id"] if "dv_id" in files.column_names and "dv_id" in others.column_names else ["path"]
    place = files.select(keys).append_column("place", pa.array(range(files.num_rows), pa.int64()))
    kept = place.join(others.select(keys).combine_chunks(), keys, join_type="left anti")
    return files.take(kept["place"].combine_chunks().sort())


def _missing(then: Snapshot, files: pa.Table) -> list[str]:
    """Those that are deleted: by VACUUM, which is on record, or by somebody else."""
    gone = pc.is_valid(files["deleted_ms"])
    on_record, others = (files["path"].filter(which).to_pylist() for which in (gone, pc.invert(gone)))
    return [*on_record, *storage.missing(then.location, others)]
