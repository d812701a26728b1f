"""Staged changes → rows of the catalog, all in one transaction."""

from __future__ import annotations

import getpass
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deltaduck import clustering, conflicts, identity, row_ids, row_views, skip_index, storage
from deltaduck import snapshot as snapshots
from deltaduck._version import __version__
from deltaduck.catalog import Catalog, Params
from deltaduck.catalog.base import DuplicateKeyError, now_ms
from deltaduck.changes import INDEXED, Change
from deltaduck.errors import CatalogError, CommitConflictError, TableExistsError, TableNotFoundError
from deltaduck.parquet import ADD_SCHEMA
from deltaduck.protocol import log, row_tracking
from deltaduck.protocol.features import IN_COMMIT_SINCE, IN_COMMIT_TIMESTAMP, is_on
from deltaduck.protocol.schema import Struct, to_json
from deltaduck.protocol.stats import SkipColumn
from deltaduck.snapshot import FEW_FILES, KEY, Snapshot

KINDS = ("commit_info", "protocol", "metadata", "txn", "domain_metadata", "cdc", "remove", "add", "add_rich", "other")
Insert = tuple[str, Params | Sequence[Any]]  # with its parameters, by name or by place


ADD_MORE = (  # what an add may say that a file written now does not have
    "tags", "dv_id", "dv_storage_type", "dv_path_or_inline_dv", "dv_offset", "dv_size_in_bytes", "dv_cardinality",
    "base_row_id", "default_row_commit_version", "clustering_provider",
)  # fmt: skip


@dataclass(frozen=True)
class Committed:
    """One table's part of a commit that has happened.

    kinds: which actions it holds, by name of their log line. rows: the INSERTs that wrote them, where they are few.
    made: the table as its metadata defines it, where it is new; skip: its index.
    """

    table_id: int
    name: str
    location: str
    version: int
    commit_ms: int
    is_checkpoint: bool
    kinds: tuple[str, ...]
    commit_id: str = ""
    rows: tuple[Insert, ...] | None = None
    made: Snapshot | None = None
    skip: Sequence[SkipColumn] = ()


def apply(catalog: Catalog, changes: Sequence[Change], isolation: str | None = None) -> list[Committed]:
    """Write all changes, inside a catalog transaction of the caller's.

    Tables are locked in the order of their ids; each is checked against the commits since the version it read.
    CommitConflictError, TableExistsError, TableNotFoundError: the caller's transaction must roll back.
    """
    isolated = [_Step(c, c.after.table_id, now_ms()) for c in changes if c.base is not None]
    steps = sorted(isolated, key=lambda s: s.table_id)
    at = {s.table_id: s for s in steps}
    for table_id in sorted({*at, *(i for c in changes for i, _ in c.needs)}):
        if table_id in at:
            _advance(catalog, at[table_id], isolation)
        else:
            catalog.rows("table_state", table_id=table_id)
    for change in changes:
        conflicts.require_files(catalog, change)
    for change in changes:
        if change.base is None:
            step = _Step(change, _create(catalog, change), now_ms())
            _advance(catalog, step, isolation)
            steps.append(step)
    written = [s for s in steps if not s.change.dropped and not s.change.changes_nothing]
    _agree_on_time(catalog, written)
    commit_id = str(uuid.uuid4())
    return [_write(catalog, step, commit_id, isolation) for step in written]


def is_committed(catalog: Catalog, part: Committed) -> bool:
    """Did the commit happen whose connection broke? Waits for the server to have done with it: until then nobody knows.

    CatalogError when the catalog cannot be asked.
    """
    try:
        with catalog.transaction():
            catalog.rows("lock_table_ids")  # the broken transaction held one of these locks,
            catalog.rows("table_state", table_id=part.table_id)  # or both
            return bool(catalog.rows("is_committed", table_id=part.table_id, commit_id=part.commit_id))
    except CatalogError as e:
        raise CatalogError(
            f"{catalog.name} went away while it committed version {part.version} of table {part.name!r}, and cannot be asked "
            f"whether it did: before you write this again, look for commit_id {part.commit_id!r} in dl_history"
        ) from e


@dataclass
class _Rows:
    """The rows of one commit on their way into the catalog. `kept` are all of them; None when that does not pay."""

    catalog: Catalog
    kept: list[Insert] | None

    def insert(self, statement: str, **params: Any) -> None:
        sql = self.catalog.sql(statement)
        self.catalog.execute(sql, params)
        if self.kept is not None:
            self.kept.append((sql, params))

    def insert_files(self, table: str, files: pa.Table) -> None:
        self.catalog.ingest(table, files)
        if files.num_rows > FEW_FILES:
            self.kept = None
        if self.kept is not None:
            names = files.column_names
            sql = f"INSERT INTO {table} ({', '.join(names)}) VALUES (:{', :'.join(names)})"
            self.kept += [(sql, row) for row in files.to_pylist()]


@dataclass
class _Step:
    """One table's part of a commit under way: the version it becomes, and when."""

    change: Change
    table_id: int
    commit_ms: int
    version: int = -1
    marked: Struct | None = None  # the schema with high water marks that this commit raises
    head: tuple[Any, ...] | None = None  # the table's row, where more of it changes than version and time


def _advance(catalog: Catalog, step: _Step, isolation: str | None) -> None:
    """Take the table's next version, which locks its row; check for conflicts when others took some since it was read."""
    change, base = step.change, step.change.base
    expected, last_ms = (-1, 0) if base is None else (base.version, base.commit_ms)
    idle = change.dropped or change.changes_nothing
    if idle or not _move(catalog, step, expected, last_ms):
        current, last_ms = _state(catalog, step)
        if current != expected:
            _reorder(catalog, change, current, isolation)
        if not idle and not _move(catalog, step, current, last_ms):
            raise CommitConflictError(change.name, expected, current, "it changed again while this commit was checked")
    if change.dropped:
        drop_table(catalog, step.table_id, change.after.name, step.commit_ms)
        catalog.gone(change.after.name)


def _reorder(catalog: Catalog, change: Change, current: int, isolation: str | None) -> None:
    """CommitConflictError unless the change may follow the versions since the one it read."""
    base = change.base
    assert base is not None
    if change.dropped:
        raise CommitConflictError(base.name, base.version, current, "it was changed after this transaction decided to drop it")
    level = isolation or base.configuration.get("delta.isolationLevel", "WriteSerializable")
    conflicts.check(catalog, change, current, serializable=level == "Serializable")


def _state(catalog: Catalog, step: _Step) -> tuple[int, int]:
    """(version, commit time) of a table now."""
    rows = catalog.rows("table_state", table_id=step.table_id)
    if not rows or rows[0][1]:
        name = step.change.name
        raise TableNotFoundError(f"table {name!r} was dropped after this transaction read it; nothing was committed")
    return rows[0][0], rows[0][2]


def _move(catalog: Catalog, step: _Step, expected: int, last_ms: int) -> bool:
    """Take version `expected` + 1. Commit times rise strictly, whatever the clock does."""
    change, base = step.change, step.change.base
    step.version, step.commit_ms = expected + 1, max(step.commit_ms, last_ms + 1)
    scope = {"table_id": step.table_id, "version": step.version, "expected": expected, "commit_ms": step.commit_ms}
    if not catalog.execute(catalog.sql("advance_table"), scope):
        return False
    if base is not None and base.name != change.name:
        _rename(catalog, step)
    if change.identity:
        step.marked = identity.raised(catalog, change, expected)
    new_protocol = base is None or base.protocol != change.after.protocol
    new_files = not change.after.has_files and change.adds_own_files
    new_metadata = change.replaces_metadata or step.marked is not None
    if new_metadata or new_protocol or new_files or change.foreign_files:
        (step.head,) = catalog.rows(
            "redefine_table", table_id=step.table_id, adds=change.adds_own_files, new_metadata=new_metadata,
            new_layout=change.replaces_layout, new_protocol=new_protocol, foreign_files=change.foreign_files,
        )  # fmt: skip
    return True


def _rename(catalog: Catalog, step: _Step) -> None:
    old, new = step.change.base, step.change.name
    assert old is not None
    if any(row[0] != step.table_id for row in catalog.rows("head", name_key=new.lower())):
        raise TableExistsError(f"table {new!r} exists already: choose another name for {old.name!r}")
    row_views.drop(catalog, old.name)
    _require_own_name(catalog, new)
    try:
        catalog.run("rename_table", table_id=step.table_id, table_name=new, name_key=new.lower())
    except DuplicateKeyError as e:
        raise TableExistsError(f"table {new!r} was created by somebody else at the same time") from e


def _agree_on_time(catalog: Catalog, steps: Sequence[_Step]) -> None:
    """One commit has one time: time travel shows all of it or nothing, in every table."""
    latest = max((s.commit_ms for s in steps), default=0)
    for step in steps:
        if step.commit_ms != latest:
            step.commit_ms = latest
            catalog.run("set_commit_time", table_id=step.table_id, commit_ms=latest)


def _create(catalog: Catalog, change: Change) -> int:
    after = change.after
    if catalog.head(after.name):
        raise TableExistsError(f"table {after.name!r} exists already; use mode='append' or 'overwrite', or another name")
    if catalog.rows("location_taken", location=after.location)[0][0] or storage.exists(after.location, log.commit_file(0)):
        raise TableExistsError(f"there is a Delta table at {after.location} already; choose another location for {after.name!r}")
    table_id = new_table(catalog, after.name, after.location)
    skip_index.create(catalog, table_id, change.skip)
    return table_id


def new_table(catalog: Catalog, name: str, location: str) -> int:
    """The id of a new table, which has no version yet. TableExistsError when its name is taken."""
    _require_own_name(catalog, name)
    catalog.rows("lock_table_ids")
    ((table_id,),) = catalog.rows("next_table_id")
    try:
        catalog.run("insert_table", table_id=table_id, table_name=name, name_key=name.lower(), location=location, now_ms=now_ms())
    except DuplicateKeyError as e:
        raise TableExistsError(f"table {name!r} was created by somebody else at the same time") from e
    return int(table_id)


def drop_table(catalog: Catalog, table_id: int, name: str, at_ms: int) -> None:
    """Free a table's name; its log and its files stay."""
    catalog.run("drop_table", table_id=table_id, now_ms=at_ms)
    skip_index.drop(catalog, table_id)
    row_views.drop(catalog, name)


def _require_own_name(catalog: Catalog, name: str) -> None:
    if row_views.is_taken(catalog, name):
        raise TableExistsError(f"{catalog.name} has a view or table {name!r} of your own: choose another name, or drop it")


def _write(catalog: Catalog, step: _Step, commit_id: str, isolation: str | None) -> Committed:
    change, version, commit_ms = step.change, step.version, step.commit_ms
    after, base = _timed(change, version, commit_ms), change.base
    scope = {"table_id": step.table_id, "version": version}
    adds, removes = change.added_files(), change.removed_files()
    rows, kinds = _Rows(catalog, [] if catalog.slow_to_plan else None), {"commit_info"}
    made, next_order = None, 3
    if base is None or base.protocol != after.protocol:
        kinds.add("protocol")
        _insert_protocol(rows, scope, after)
    if change.replaces_metadata or step.marked is not None:
        kinds.add("metadata")
        marked = after if step.marked is None else replace(after, schema=step.marked)
        said = _insert_metadata(rows, scope, marked, commit_ms, only_marks=not change.replaces_metadata)
        if base is None:
            made = snapshots.defined(step.table_id, version, said, after.protocol)
        elif change.replaces_metadata:
            skip_index.redefine(catalog, step.table_id, change.skip)
    for app_id, app_version in change.app_transactions.items():
        kinds.add("txn")
        rows.insert("insert_txn", **scope, action_order=next_order, app_id=app_id, app_version=app_version, commit_ms=commit_ms)
        next_order += 1
    if change.cdc:
        kinds.add("cdc")
        next_order += _insert_cdc(rows, change, scope, next_order)
    if adds is not None and adds.num_rows and row_tracking.gives_ids(after.protocol, after.configuration):
        if change.foreign_files:
            adds = row_ids.known(catalog, step.table_id, adds)
        adds, domain = row_ids.assigned(catalog, after.name, step.table_id, version, adds)
        if domain is not None:
            kinds.add("domain_metadata")
            rows.insert("insert_domain", **scope, action_order=next_order, domain=row_tracking.DOMAIN, configuration=domain)
            next_order += 1
    next_order += _insert_clustering(rows, change, scope, next_order, kinds)
    if removes is not None and removes.num_rows:
        kinds.add("remove")
        next_order += _remove(rows, change, scope, removes, next_order, commit_ms)
    if adds is not None and adds.num_rows:
        rich = change.foreign_files or not set(ADD_MORE).isdisjoint(adds.column_names)
        kinds |= {"add", "add_rich"} if rich else {"add"}
        _add(rows, change, scope, adds, next_order)
    _insert_version(
        rows, replace(change, after=after), scope, commit_ms, commit_id, isolation, _metrics(adds, removes) | change.metrics
    )
    interval = int(after.configuration.get("delta.checkpointInterval", "10"))
    is_checkpoint = change.checkpoint and version > 0 and version % interval == 0
    catalog.run("insert_outbox", **scope, is_checkpoint=is_checkpoint)
    if change.replaces_metadata or change.foreign_files or ("add" in kinds and not after.has_files):
        row_views.publish(catalog, after, step.table_id, has_files=after.has_files or change.adds_own_files)
    in_order = tuple(kind for kind in KINDS if kind in kinds)
    if base is not None and base.name != after.name:
        catalog.gone(base.name)
    catalog.moved(after.name, version, commit_ms, step.head)
    kept = None if rows.kept is None else tuple(rows.kept)
    return Committed(
        step.table_id, after.name, after.location, version, commit_ms, is_checkpoint, in_order, commit_id, kept, made, change.skip
    )  # fmt: skip


def _timed(change: Change, version: int, commit_ms: int) -> Snapshot:
    """The table as it will be; one that begins to hold the times of its commits says since when."""
    after, base = change.after, change.base
    if base is None or is_on(base.configuration, IN_COMMIT_TIMESTAMP) or not is_on(after.configuration, IN_COMMIT_TIMESTAMP):
        return after
    since = dict(zip(IN_COMMIT_SINCE, (str(version), str(commit_ms)), strict=True))
    return replace(after, configuration={**after.configuration, **since})


def _insert_version(
    rows: _Rows, change: Change, scope: dict[str, int], commit_ms: int, commit_id: str, isolation: str | None,
    metrics: dict[str, int],
) -> None:  # fmt: skip
    """The commit's own row, and its commitInfo."""
    base, after = change.base, change.after
    in_commit_ms = commit_ms if is_on(after.configuration, IN_COMMIT_TIMESTAMP) else None
    info = {
        "inCommitTimestamp": in_commit_ms,
        "timestamp": commit_ms,
        "operation": change.operation,
        "operationParameters": change.parameters,
        "readVersion": base.version if base else None,
        "isolationLevel": isolation or after.configuration.get("delta.isolationLevel", "WriteSerializable"),
        "isBlindAppend": base is not None and not (change.reads or change.searches or change.removes or change.replaces_metadata),
        "operationMetrics": {k: str(v) for k, v in metrics.items()},
        "engineInfo": f"{skip_index.ENGINE}/{__version__}",
        "txnId": commit_id,
        "userName": _user(),
        "userMetadata": change.user_metadata,
        "tags": row_tracking.PRESERVED if row_tracking.columns(after.configuration) else None,
    } | dict(change.info)
    rows.insert(
        "insert_version", **scope, commit_ms=commit_ms, commit_id=commit_id, read_version=info["readVersion"],
        in_commit_timestamp=in_commit_ms,
        commit_info=_json({k: v for k, v in info.items() if v is not None}), operation=change.operation,
        operation_parameters=_json(change.parameters), operation_metrics=_json(info["operationMetrics"]),
        isolation_level=info["isolationLevel"], is_blind_append=info["isBlindAppend"], engine_info=info["engineInfo"],
        user_name=info["userName"], user_metadata=change.user_metadata,
    )  # fmt: skip


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _insert_protocol(rows: _Rows, scope: dict[str, int], after: Snapshot) -> None:
    p = after.protocol
    rows.insert(
        "insert_protocol", **scope, min_reader_version=p.min_reader_version, min_writer_version=p.min_writer_version,
        reader_features=None if p.reader_features is None else json.dumps(p.reader_features),
        writer_features=None if p.writer_features is None else json.dumps(p.writer_features),
    )  # fmt: skip


def _insert_metadata(rows: _Rows, scope: dict[str, int], after: Snapshot, commit_ms: int, *, only_marks: bool) -> dict[str, Any]:
    """The metaData action; what it says."""
    said = {
        "id": after.metadata_id, "name": after.metadata_name, "description": after.description,
        "schema_string": to_json(after.schema), "partition_columns": _json(after.partition_columns),
        "configuration": _json(dict(sorted(after.configuration.items()))),
        "created_time": after.created_ms if after.created_ms is not None else commit_ms,
    }  # fmt: skip
    rows.insert("insert_metadata", **scope, **said, only_marks=only_marks or None)
    return said


def _insert_cdc(rows: _Rows, change: Change, scope: dict[str, int], first_order: int) -> int:
    cdc = pa.concat_tables(change.cdc)
    n = int(cdc.num_rows)
    for name, value in scope.items():
        cdc = cdc.append_column(name, pa.repeat(pa.scalar(value, pa.int64()), n))
    cdc = cdc.append_column("action_order", pa.array(range(first_order, first_order + n), pa.int64()))
    rows.catalog.ingest("dl_cdc_files", cdc.append_column("data_change", pa.repeat(False, n)))
    rows.kept = None
    return n


def _insert_clustering(rows: _Rows, change: Change, scope: dict[str, int], order: int, kinds: set[str]) -> int:
    """The columns that the table is clustered by from now on; how many actions that is."""
    if change.clustering is None:
        return 0
    kinds.add("domain_metadata")
    rows.insert("insert_clustering", **scope, action_order=order, configuration=clustering.configuration(change.clustering))
    return 1


def _remove(rows: _Rows, change: Change, scope: dict[str, int], removes: pa.Table, first_order: int, commit_ms: int) -> int:
    """Remove actions of files that go, and the end of their lives, also of those that are only added again; how many actions."""
    removes = snapshots.in_order(removes)
    gone = snapshots.having(removes, "data_change").drop_columns(KEY)
    n = gone.num_rows
    own = scope | {"deletion_timestamp": commit_ms}
    for name, value in own.items():
        gone = gone.append_column(name, pa.repeat(pa.scalar(value, pa.int64()), n))
    gone = gone.append_column("action_order", pa.array(range(first_order, first_order + n), pa.int64()))
    if gone["dv_id"].null_count:
        gone = gone.set_column(gone.column_names.index("dv_id"), "dv_id", gone["dv_id"].fill_null(""))
    if n:
        rows.insert_files("dl_remove_files", gone.append_column("extended_file_metadata", pa.repeat(True, n)))
    if _close(rows.catalog, scope, removes) != removes.num_rows:  # only a conflict check that missed something gets here
        raise CommitConflictError(change.name, scope["version"] - 1, scope["version"] - 1, "files it removes are gone")
    return int(n)


def _close(catalog: Catalog, scope: dict[str, int], files: pa.Table) -> int:
    """End the lives of live files; of how many."""
    sql = catalog.sql("close_intervals")
    if files.num_rows > FEW_FILES:
        with catalog.staged("dl_staged_removes", files.select(KEY)):
            among = "(version, action_order) IN (SELECT version, action_order FROM dl_staged_removes)"
            return catalog.execute(sql.format(among=among), scope)
    return catalog.execute(sql.format(among=snapshots.among(files)), scope)


def _add(rows: _Rows, change: Change, scope: dict[str, int], adds: pa.Table, first_order: int) -> None:
    """Add actions, and rows of the skip index for files that have none."""
    n = adds.num_rows
    order = pa.array(np.arange(first_order, first_order + n, dtype=np.int64))
    version = pa.repeat(pa.scalar(scope["version"], pa.int64()), n)
    said = {*adds.column_names}
    known = [c for c in (*ADD_SCHEMA.names, *ADD_MORE, *INDEXED) if c in said]
    files = adds.select(known)
    if "dv_id" in known and files["dv_id"].null_count:
        files = files.set_column(known.index("dv_id"), "dv_id", files["dv_id"].fill_null(""))
    files = files.append_column("table_id", pa.repeat(pa.scalar(scope["table_id"], pa.int64()), n))
    rows.insert_files("dl_add_files", files.append_column("version", version).append_column("action_order", order))
    placed = adds.append_column("version", version).append_column("action_order", order)
    if INDEXED[0] in said:
        placed = placed.filter(pc.is_null(adds[INDEXED[0]])) if adds[INDEXED[0]].null_count else placed.slice(0, 0)
    if placed.num_rows:
        skip_index.add(rows.catalog, scope["table_id"], change.skip, placed)


def _metrics(adds: pa.Table | None, removes: pa.Table | None) -> dict[str, int]:
    """operationMetrics: what the files say."""
    out: dict[str, int] = {}
    if adds is not None:
        out |= {
            "numFiles": adds.num_rows,
            "numOutputRows": pc.sum(adds["num_records"]).as_py() or 0,
            "numOutputBytes": pc.sum(adds["size"]).as_py() or 0,
        }
    if removes is not None:
        out["numRemovedFiles"] = removes.num_rows - removes["data_change"].null_count
    return out


@cache
def _user() -> str | None:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return None
