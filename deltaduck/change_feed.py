"""The change data feed: which rows came and went, version by version.

From change data files where a commit wrote them, else from the files it added and removed, and for a file whose deletion
vector changed from the difference of the two.
Protocol: https://github.com/delta-io/delta/blob/master/PROTOCOL.md#add-cdc-file
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from deltaduck import deletions, scan
from deltaduck.catalog import Catalog
from deltaduck.errors import VersionNotFoundError
from deltaduck.protocol.schema import Field, literal, to_duckdb
from deltaduck.snapshot import Snapshot

COLUMNS = (Field("_change_type", "string"), Field("_commit_version", "long"), Field("_commit_timestamp", "timestamp"))


def changes_sql(connection: Any, catalog: Catalog, snapshot: Snapshot, first: int | None) -> str:
    """A query for the changes from version `first` up to the snapshot's, with the snapshot's columns and COLUMNS.

    first: None for the oldest version whose own actions are known.
    _change_type is insert, delete, update_preimage or update_postimage; _commit_timestamp is in UTC.
    VersionNotFoundError where the log of those versions is not known.
    """
    ((oldest,),) = catalog.rows("oldest_commit", table_id=snapshot.table_id)
    if oldest is None:
        raise VersionNotFoundError(f"table {snapshot.name!r} is known only as its checkpoint says it is now: it has no changes")
    first = oldest if first is None else first
    scope = {"table_id": snapshot.table_id, "first": first, "last": snapshot.version}
    if first < oldest or first > snapshot.version:
        raise VersionNotFoundError(
            f"table {snapshot.name!r} knows its changes from version {oldest} to {snapshot.latest}, "
            f"not from {first} to {snapshot.version}"
        )
    said = catalog.arrow("cdc_files", **scope)
    files = catalog.arrow("changed_files", **scope)
    files = files.filter(pc.invert(pc.is_in(files["commit_version"], pc.unique(said["commit_version"]))))
    before, after, rest = _paired(files)
    parts = [_part(connection, snapshot, said, None)] if said.num_rows else []
    if before.num_rows:  # one file under two vectors: what the one hides and the other does not
        parts.append(_part(connection, snapshot, after, "delete", deletions.between(snapshot.location, before, after)))
        parts.append(_part(connection, snapshot, before, "insert", deletions.between(snapshot.location, after, before)))
    for kind in ("insert", "delete"):
        of_kind = _of(rest, kind)
        if of_kind.num_rows or not parts:
            parts.append(_part(connection, snapshot, of_kind, kind))
    return " UNION ALL ".join(parts)


def _of(files: pa.Table, kind: str) -> pa.Table:
    return files.filter(pc.equal(files["change_type"], kind)) if files.num_rows else files  # whose columns have no types then


def _paired(files: pa.Table) -> tuple[pa.Table, pa.Table, pa.Table]:
    """(files as they were, the same files as they became in the same commit, all others)."""
    keys = ["commit_version", "path"]
    if not files.num_rows:
        return files, files, files
    gone, came = (_of(files, kind) for kind in ("delete", "insert"))
    both = gone.select(keys).join(came.select(keys), keys, join_type="inner")
    if not both.num_rows:
        return gone.slice(0, 0), came.slice(0, 0), files
    order = [(key, "ascending") for key in keys]
    gone, came = (side.join(both, keys, join_type="left semi").sort_by(order) for side in (gone, came))
    return gone, came, files.join(both, keys, join_type="left anti")


def _part(connection: Any, snapshot: Snapshot, files: pa.Table, kind: str | None, only: str | None = None) -> str:
    """The rows of `files` (with commit_version and commit_ms) as changes; kind None: the files say it themselves."""
    change = f"{literal(kind)} AS _change_type" if kind else "_change_type"
    columns = [
        change,
        f"{scan.of_file(files['commit_version'].to_pylist())} AS _commit_version",
        f"make_timestamptz(1000 * {scan.of_file(files['commit_ms'].to_pylist())}) AS _commit_timestamp",
    ]
    if not files.num_rows:
        return scan.empty_sql(snapshot.schema, types={f.name: to_duckdb(f.type) for f in COLUMNS})
    stored = {} if kind else {"_change_type": "VARCHAR"}
    return scan.scan_sql(connection, snapshot, files, ", ".join(columns), only=only, stored=stored)
