"""Many statements over many tables, committed as one or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
from sqlglot import exp

from deltaduck import predicate as predicates
from deltaduck import snapshot as snapshots
from deltaduck import storage, telemetry
from deltaduck.changes import Change, removal
from deltaduck.commit import Committed
from deltaduck.errors import DeltaduckError, TableExistsError
from deltaduck.frames import Source
from deltaduck.frontends import dml, sql
from deltaduck.frontends.merger import TableMerger
from deltaduck.frontends.parameters import bound
from deltaduck.operations import change_data, create, write
from deltaduck.operations.files import give_row_ids
from deltaduck.predicate import Condition
from deltaduck.snapshot import Snapshot

if TYPE_CHECKING:
    from deltaduck.lake import Lake

LEVELS = {None: None, "write_serializable": "WriteSerializable", "serializable": "Serializable"}


class Transaction:
    """Stages any mix of writes over any tables; ``commit`` makes all of it true at once.

    Reads inside see the lake as it was at the transaction's first read, with its own changes on top. As a context
    manager it commits at the end and rolls back on an exception. Statements on the same table become one commit of it.
    """

    def __init__(self, lake: Lake, isolation: str | None = None, lease: object = None) -> None:
        """lease: what keeps the lake open until the transaction ends."""
        if isolation not in LEVELS:
            raise DeltaduckError(f"isolation {isolation!r} is unknown; it is 'write_serializable' or 'serializable'")
        lake.require_writable()
        self.lake = lake
        self._lease = lease
        self._isolation = LEVELS[isolation]
        self._changes: dict[str, Change] = {}
        self._dropped: dict[str, Change] = {}
        self._start: dict[int, int] | None = None  # table_id -> version at the first read
        self._snapshots: dict[str, Snapshot | None] = {}
        self._reads: dict[str, list[Condition]] = {}
        self._written: list[str] = []
        self._state = "open"
        self.committed: list[Committed] = []

    # --- statements

    def write(self, table: str, frame: Any, mode: str = "append", **options: Any) -> dict[str, int]:
        """Stage rows in a table; the options are those of ``Lake.write``. {"rows": …, "files": …} that were written."""
        with self.statement():
            key, user_metadata, app = table.lower(), options.pop("commit_metadata", None), options.pop("app_transaction", None)
            if app is not None and self.is_done(table, app):
                return {"rows": 0, "files": 0}
            source = frame if isinstance(frame, Source) else self.lake.open_source(frame, self)
            counts = write.write(self, table, source, mode=mode, **options)
            if (change := self._changes.get(key)) is not None:
                if user_metadata is not None:
                    change.user_metadata = user_metadata
                if app is not None:
                    change.app_transactions[str(app[0])] = int(app[1])
            return counts

    def create_table(
        self, table: str, schema: Any, *, partition_by: Sequence[str] | None = None,
        configuration: Mapping[str, str] | None = None, description: str | None = None, location: str | None = None,
        cluster_by: Sequence[str] = (),
    ) -> None:  # fmt: skip
        """Stage a new, empty table. TableExistsError, SchemaMismatchError, UnsupportedFeatureError."""
        self._require_open()
        if self.find(table) is not None:
            raise TableExistsError(f"table {table!r} exists already")
        fields = create.as_schema(self.lake.con, schema)
        create.create(self, table, fields, partition_by, configuration, description, location, cluster_by)

    def drop_table(self, table: str) -> None:
        """Stage the removal of a table from the lake. Its files and its log stay where they are."""
        self._require_open()
        change = self._need(table)
        self._changes.pop(table.lower(), None)
        if change.base is not None:
            change.dropped = True
            self._dropped[table.lower()] = change
        self._snapshots[table.lower()] = None

    def delete(self, table: str, predicate: str | None = None) -> dict[str, int]:
        """Stage the deletion of the rows that match; of all rows without a predicate."""
        with self.statement():
            return dml.brief(dml.delete(self, table, predicate))

    def update(self, table: str, updates: Mapping[str, str], predicate: str | None = None) -> dict[str, int]:
        """Stage new values, as SQL over the old row, for the rows that match."""
        with self.statement():
            return dml.brief(dml.update(self, table, updates, predicate))

    def merge(self, table: str, source: Any, predicate: str, **options: Any) -> TableMerger:
        """A merge to be staged by its ``execute()``; the options are those of ``DeltaTable.merge``."""
        self._require_open()
        return TableMerger(self.lake, table, source, predicate, self, **options)

    def sql(self, query: str, params: Sequence[Any] | Mapping[str, Any] | None = None) -> Any:
        """Run SQL inside the transaction: reads see its changes, statements that write are staged. params: as of ``Lake.sql``."""
        self._require_open()
        return self.lake.run_sql(query if params is None else bound(query, params), self, sql.caller_frame())

    @contextlib.contextmanager
    def statement(self) -> Iterator[None]:
        """A statement that fails leaves the transaction as it was before it."""
        self._require_open()
        before = {key: change.copy() for key, change in self._changes.items()}, dict(self._dropped), dict(self._snapshots)
        written = len(self._written)
        try:
            yield
        except BaseException:
            self._changes, self._dropped, self._snapshots = before
            storage.remove(self._written[written:])
            del self._written[written:]
            raise

    # --- the end

    def commit(self) -> None:
        """Make everything staged true, or nothing. CommitConflictError when the tables moved on in a way that matters."""
        self._require_open()
        since = telemetry.clock()
        try:
            for change in self._changes.values():
                change_data.tell_rest(self, change)
                give_row_ids(self, change)
            changes = self._all_changes()
            with telemetry.span("commit") as span:
                self.committed = self.lake.commit(changes, self._isolation, self._keep_files)
                telemetry.committed(self.lake.catalog.name, changes, self.committed, since, span)
        except BaseException:
            self.rollback()
            raise
        self._state = "committed"
        self.lake.mirror.publish(self.committed)
        self._lease = None

    def _keep_files(self) -> None:
        """From now on the commit may have happened, and need them."""
        self._written.clear()
        for change in self._changes.values():
            change.written.clear()

    def rollback(self) -> None:
        """Forget everything staged."""
        self._state = "rolled back"
        storage.remove([*self._written, *(name for change in self._changes.values() for name in change.written)])
        self._lease = None

    def __enter__(self) -> Transaction:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if self._state == "open":
            if kind is None:
                self.commit()
            else:
                self.rollback()

    def __repr__(self) -> str:
        tables = ", ".join(sorted([c.name for c in self._changes.values()] + [c.name for c in self._dropped.values()]))
        return f"<deltaduck transaction, {self._state}{': ' + tables if tables else ''}>"

    # --- what operations and the SQL frontend ask of it

    def find(self, name: str, version: int | None = None, timestamp: Any = None) -> Snapshot | None:
        """The table as this transaction sees it; None when there is none. A version or time is looked up as committed."""
        if version is not None or timestamp is not None:
            return self.lake.find(name, version, timestamp)
        key = name.lower()
        if (change := self._changes.get(key)) is not None:
            return change.after
        if key not in self._snapshots:
            self._snapshots[key] = self._as_of_start(name)
        return self._snapshots[key]

    def visible(self, snapshot: Snapshot, condition: Condition | None = None) -> pa.Table:
        """Its files, recorded as read."""
        change = self._changes.get(snapshot.name.lower())
        if change is None or change.after is not snapshot:
            self.reads(snapshot.name).append(condition or Condition())
            return snapshots.files(self.lake.catalog, snapshot, condition)
        self.reads(snapshot.name).append(self._usable(change, condition) or Condition())
        return self.files(change, condition)

    def _usable(self, change: Change, condition: Condition | None) -> Condition | None:
        """A condition on the index of a table under change, unless it names columns that exist only after the commit."""
        if change.base is None or change.skip != snapshots.skip_columns(self.lake.catalog, change.base):
            return None
        return condition

    def reads(self, name: str) -> list[Condition]:
        """What queries of this transaction have asked of a table."""
        return self._reads.setdefault(name.lower(), [])

    def files(self, change: Change, condition: Condition | None = None) -> pa.Table:
        """The files of a table under change: those committed, less those this transaction removed, and those it added."""
        parts = []
        if change.base is not None:
            committed = snapshots.files(self.lake.catalog, change.base, self._usable(change, condition))
            gone = change.removed_keys()
            if gone is not None:
                committed = snapshots.in_order(committed.join(gone, snapshots.KEY, join_type="left anti"))
            parts.append(committed)
        if (added := change.added_files()) is not None:
            wanted = [c for c in parts[0].column_names if c in added.column_names] if parts else added.column_names
            parts.append(added.select(wanted))
        if not parts:
            return _no_files()
        return pa.concat_tables([_no_files(), *parts], promote_options="permissive")

    def compile(self, snapshot: Snapshot, where: exp.Expr | None, qualifiers: Sequence[str] = ()) -> Condition:
        change = self._changes.get(snapshot.name.lower())
        staged = change is not None and change.after is snapshot
        columns = change.skip if change is not None and staged else snapshots.skip_columns(self.lake.catalog, snapshot)
        return predicates.compile_condition(where, snapshots.by_name(columns, snapshot), self.lake.evaluate, qualifiers)

    def condition(self, change: Change, where: str | exp.Expr | None, qualifiers: Sequence[str] = ()) -> Condition:
        """The files of a table under change in which a row could match."""
        tree = predicates.parse(where) if isinstance(where, str) else where
        return Condition() if tree is None else self.compile(change.after, tree, qualifiers or [change.name])

    def planned(self, expression: str | None) -> str | None:
        """A SQL expression whose subqueries read the lake as this transaction sees it."""
        return None if expression is None else sql.plan_expression(self.lake, self, expression, sql.caller_frame())

    @contextlib.contextmanager
    def at_one_point(self) -> Iterator[None]:
        if self._start is not None:  # a version that was committed never changes
            yield
            return
        self.pin()
        with self.lake.at_one_point():
            yield

    def change(self, name: str) -> Change | None:
        """What is staged for a table, begun when nothing was; None when there is no such table."""
        key = name.lower()
        if key not in self._changes:
            if (base := self.find(name)) is None:
                return None
            catalog = self.lake.catalog
            self._changes[key] = Change(
                base, base, snapshots.skip_columns(catalog, base), snapshots.all_skip_columns(catalog, base)
            )
        return self._changes[key]

    def is_changed(self, snapshot: Snapshot) -> bool:
        """Is it a table as this transaction has changed it?"""
        change = self._changes.get(snapshot.name.lower())
        return change is not None and change.after is snapshot and not change.changes_nothing

    def stage(self, change: Change) -> None:
        """Put a change in the place of the one before."""
        self._changes[change.name.lower()] = change

    def rename(self, change: Change, after: Snapshot) -> None:
        """Know the table of a change by another name from here on."""
        self._changes.pop(change.name.lower())
        if after.name.lower() != change.name.lower():
            self._snapshots[change.name.lower()] = None
        change.after = after
        self.stage(change)

    def add(self, change: Change, adds: pa.Table, files: list[str], *, told: bool = False) -> None:
        """Stage new files; `files` are their names, to be deleted should the transaction roll back.

        told: do change data files say what their rows are, where the table has any?"""
        if adds.num_rows:
            change.adds.append(change_data.told(adds) if told else adds)
            self._written += files

    def tell(self, change: Change, cdc: pa.Table, files: list[str]) -> None:
        """Stage change data files."""
        if cdc.num_rows:
            change.cdc.append(cdc)
            self._written += files

    def remove(self, change: Change, files: pa.Table, *, data_change: bool = True, told: bool = False) -> None:
        """Take files out: committed ones are removed by the commit, staged ones are as if they had never been.

        data_change: False when the same rows are added again.
        """
        if not files.num_rows:
            return
        if data_change:
            change.require_removable()
        if "version" in files.column_names:
            committed = snapshots.having(files, "version")
            if committed.num_rows:
                removes = removal(committed, data_change)
                change.removes.append(change_data.told(removes) if told else removes)
        gone = files["path"].combine_chunks()
        if data_change:
            change_data.no_mere_move(change, gone)
        change.adds = [t for t in (a.filter(pc.invert(pc.is_in(a["path"], gone))) for a in change.adds) if t.num_rows]
        change.removes = [part for r in change.removes for part in _not_again(r, gone, data_change, told)]

    # --- inside

    def _require_open(self) -> None:
        if self._state != "open":
            raise DeltaduckError(f"this transaction is {self._state}: begin another one")

    def _need(self, table: str) -> Change:
        change = self.change(table)
        if change is None:
            raise self.lake.not_found(table)
        return change

    def pin(self, versions: Mapping[int, int] | None = None) -> None:
        """From now on every table is as of this moment, or of an earlier one at which it was read.

        versions: table_id → version, for a moment that was before this transaction; tables that are not named were not there.
        """
        if self._start is None:
            self._start = dict(self.lake.catalog.rows("table_versions") if versions is None else versions)

    def _as_of_start(self, name: str) -> Snapshot | None:
        if self._start is None:
            return self.lake.find(name)
        head = self.lake.find(name)
        if head is None or head.table_id not in self._start:
            return None
        return head if head.version == self._start[head.table_id] else self.lake.find(name, self._start[head.table_id])

    def is_done(self, table: str, app: tuple[str, int]) -> bool:
        """Has the application committed this version, or a later one, to the table?"""
        snapshot = self.find(table)
        if snapshot is None or snapshot.table_id < 0:
            return False
        ((version,),) = self.lake.catalog.rows("transaction_version", table_id=snapshot.table_id, app_id=str(app[0]))
        return version is not None and version >= int(app[1])

    def _all_changes(self) -> list[Change]:
        changes = [*self._dropped.values(), *(c for c in self._changes.values())]
        if self._isolation == "Serializable":  # what was only read must not have changed either
            for key, conditions in self._reads.items():
                if key not in self._changes and (base := self._snapshots.get(key)) is not None:
                    changes.append(Change(base, base, [], reads=conditions))
                elif key in self._changes:
                    self._changes[key].reads += conditions
        return changes


def _not_again(removes: pa.Table, gone: pa.Array, data_change: bool, told: bool) -> list[pa.Table]:
    """Removes of files that were to be added again, now that some of these adds are gone."""
    if "again" not in removes.column_names or not pc.any(which := pc.is_in(removes["again"], gone)).as_py():
        return [removes]
    now = removal(removes.filter(which), data_change)
    return [removes.filter(pc.invert(which)), change_data.told(now) if told else now]


def _no_files() -> pa.Table:
    text, number = pa.string(), pa.int64()
    kinds = {
        "version": number, "action_order": number, "path": text, "size": number, "modification_time": number,
        "partition_values": text, "num_records": number, "stats": text, "tags": text, "data_change": pa.bool_(),
    }  # fmt: skip
    return pa.schema(kinds).empty_table()
