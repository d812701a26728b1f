"""May a commit that read version r follow the versions after r? Answered in SQL, from what it read."""

from __future__ import annotations

import pyarrow as pa

from deltaduck import row_conflicts
from deltaduck.catalog import Catalog
from deltaduck.changes import Change
from deltaduck.errors import CommitConflictError


def check(catalog: Catalog, change: Change, actual: int, *, serializable: bool) -> None:
    """CommitConflictError when `change` cannot be committed after version `actual`; else it can, as it is on return.

    A commit that read nothing conflicts only with changes of schema, properties or protocol, and with its own
    application. One that read files conflicts with whoever removed a file it read, or added one it should have read. Where
    both hid rows of a file by deletion vectors, and not the same ones, the vectors are united.
    """
    base = change.base
    assert base is not None
    scope = {"table_id": base.table_id, "read_version": base.version}

    def conflict(reason: str) -> CommitConflictError:
        return CommitConflictError(base.name, base.version, actual, reason)

    for app_id in [*change.app_transactions] or [""]:
        if found := catalog.rows("first_conflict", **scope, app_id=app_id):
            raise conflict(f"{found[0][1]} in version {found[0][0]}")
    if change.replaces_metadata or change.clustering is not None:
        raise conflict("this commit changes its schema or properties, and must see every other commit")
    lost = _lost(catalog, change)
    if lost.num_rows and (version := row_conflicts.first_beyond_repair(change, lost)) is not None:
        raise conflict(f"version {version} removed files that this commit removes")
    both = (("conflicting_remove", "removed"), ("conflicting_add", "added"))
    reads = [(condition, both) for condition in change.reads] + [(condition, both[1:]) for condition in change.searches]
    for condition, questions in reads:
        join = (
            f"JOIN dl_skip_{base.table_id} s ON s.version = coalesce(a.indexed_version, a.version) "
            "AND s.action_order = coalesce(a.indexed_action_order, a.action_order)"
        )
        for name, what in questions:
            sql = catalog.sql(name).format(skip_join=join, condition=condition.sql)
            ((version,),) = catalog.fetch(sql, {**scope, **condition.params, "serializable": serializable})
            if version is not None:
                raise conflict(f"version {version} {what} rows that this commit read")
    if lost.num_rows:
        row_conflicts.follow(change, lost, actual)


def require_files(catalog: Catalog, change: Change) -> None:
    """CommitConflictError when VACUUM takes files that the change brings back. The tables that have them are locked."""
    for table_id, adds in change.needs:
        with catalog.staged("dl_staged_files", adds.select(["path", "dv_id"])):
            ((path,),) = catalog.rows("vacuumed_file", table_id=table_id)
        if path is not None:
            version = -1 if change.base is None else change.base.version
            reason = f"VACUUM deletes files that this commit brings back, such as {path}"
            raise CommitConflictError(change.name, version, version, reason)


def _lost(catalog: Catalog, change: Change) -> pa.Table:
    """The files that the change takes out and somebody else took out first."""
    removes = change.removed_keys()
    if removes is None or change.base is None:
        return row_conflicts.lost_files([])
    with catalog.staged("dl_staged_removes", removes):
        return row_conflicts.lost_files(catalog.rows("conflicting_own", table_id=change.base.table_id))
