"""Clustering: which columns a table's rows are to lie near each other by, and which of its files do.

Protocol: https://github.com/delta-io/delta/blob/master/PROTOCOL.md#clustered-table
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from deltaduck.catalog import Catalog
from deltaduck.changes import Change
from deltaduck.errors import LogCorruptError, SchemaMismatchError
from deltaduck.protocol import stats
from deltaduck.protocol.features import Protocol, required_features, with_features, writer_features
from deltaduck.protocol.schema import Struct, logical_leaves
from deltaduck.snapshot import Snapshot

Path = tuple[str, ...]
FEATURE = "clustering"
FEATURES = {FEATURE, "domainMetadata"}
PROVIDER = "liquid"  # as Spark calls it: its files and ours are clustered on together
MOST = 4  # columns: each halves what the others can tell apart


def in_force(catalog: Catalog, snapshot: Snapshot) -> tuple[Path, ...]:
    """The clustering columns of a committed version, by their names in the files."""
    if FEATURE not in writer_features(snapshot.protocol) or snapshot.table_id < 0:
        return ()
    rows = catalog.rows("clustering_at", table_id=snapshot.table_id, version=snapshot.version)
    if not rows or rows[0][1]:
        return ()
    try:
        columns = json.loads(rows[0][0])["clusteringColumns"]
        return tuple((c,) if isinstance(c, str) else tuple(map(str, c)) for c in columns)
    except (ValueError, KeyError, TypeError) as e:
        raise LogCorruptError(f"table {snapshot.name!r}: the clustering columns in the log cannot be read: {e}") from e


def current(catalog: Catalog, change: Change) -> tuple[Path, ...]:
    """The same of a table under change."""
    if change.clustering is not None:
        return change.clustering
    return () if change.base is None else in_force(catalog, change.base)


def names(columns: Sequence[Path], schema: Struct) -> list[str]:
    """Clustering columns by the schema's own names; those that it has not are left out."""
    known = dict(logical_leaves(schema))
    return [".".join(known[c]) for c in columns if c in known]


def clustered(change: Change, columns: Sequence[Path]) -> Change:
    """The change with other clustering columns, by the schema's names; with none of them, of a table that is not clustered
    any more. SchemaMismatchError for columns that cannot be."""
    after = change.after
    if columns and after.partition_columns:
        parts = ", ".join(after.partition_columns)
        raise SchemaMismatchError(f"table {change.name!r} is partitioned by {parts}: a table is either partitioned or clustered")
    if len(columns) > MOST:
        raise SchemaMismatchError(f"table {change.name!r}: {MOST} columns to cluster by are the most, not {len(columns)}")
    leaves = {tuple(p.lower() for p in logical): physical for physical, logical in logical_leaves(after.schema)}
    bounded = {path for path, t in stats.indexed_leaves(after.schema, (), after.configuration) if stats.has_bounds(t)}
    found = []
    for column in columns:
        physical = leaves.get(tuple(p.lower() for p in column))
        if physical is None:
            raise SchemaMismatchError(
                f"table {change.name!r}: there is no column {'.'.join(column)!r} to cluster by; it has "
                f"{', '.join('.'.join(logical) for _, logical in logical_leaves(after.schema))}"
            )
        if physical not in bounded:
            raise SchemaMismatchError(
                f"table {change.name!r} cannot be clustered by {'.'.join(column)!r}: its files say no minimum and maximum of it, "
                "by its type or by delta.dataSkippingNumIndexedCols or delta.dataSkippingStatsColumns"
            )
        found.append(physical)
    if len(set(found)) < len(found):
        raise SchemaMismatchError(f"table {change.name!r}: a column to cluster by is named twice")
    protocol = after.protocol
    if columns and change.base is None:
        protocol = with_features(Protocol(1, 1), FEATURES | required_features(after.schema, after.configuration))
    elif columns:
        protocol = with_features(protocol, FEATURES)
    return replace(change, after=replace(after, protocol=protocol), clustering=tuple(found))


def configuration(columns: Sequence[Path]) -> str:
    """What the domain ``delta.clustering`` says."""
    return json.dumps({"clusteringColumns": columns}, ensure_ascii=False, separators=(",", ":"))


def require_free(catalog: Catalog, change: Change, schema: Struct) -> None:
    """SchemaMismatchError when a schema lacks a column that the table is clustered by."""
    columns = current(catalog, change)
    left = dict(logical_leaves(schema))
    if gone := [c for c in columns if c not in left]:
        shown = ".".join(dict(logical_leaves(change.after.schema)).get(gone[0], gone[0]))
        raise SchemaMismatchError(
            f"table {change.name!r} is clustered by {shown!r}, which stays: "
            f"ALTER TABLE {change.name} CLUSTER BY NONE, or others, first"
        )


def pending(files: pa.Table, least: int, *, full: bool) -> pa.Table:
    """The files that an OPTIMIZE is to cluster: those that are not yet, and small ones, or all of them. Those of other providers
    are theirs.

    least: bytes of a file that is no small one."""
    if "clustering_provider" not in files.column_names:
        return files
    provider = pc.fill_null(files["clustering_provider"], "")
    foreign = pc.invert(pc.is_in(provider, pa.array(["", PROVIDER])))
    done = pc.and_(pc.equal(provider, PROVIDER), pc.greater_equal(files["size"], least))
    wanted = files.filter(pc.invert(foreign if full else pc.or_(foreign, done)))
    if not full and wanted.num_rows == 1 and wanted["clustering_provider"][0].as_py() == PROVIDER:
        return files.slice(0, 0)  # small, and alone
    return wanted


def marked(adds: pa.Table) -> pa.Table:
    """Adds of files that are clustered."""
    return adds.append_column("clustering_provider", pa.array([PROVIDER] * adds.num_rows, pa.string()))
