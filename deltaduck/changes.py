"""What a transaction does to one table, before it is committed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from deltaduck.errors import ConstraintViolationError
from deltaduck.parquet import Target
from deltaduck.predicate import Condition
from deltaduck.protocol.schema import Struct, physical, to_duckdb
from deltaduck.protocol.stats import SkipColumn
from deltaduck.snapshot import KEY, NEVER_UNIFORM, Snapshot

REMOVED = [  # what a remove says of its file
    "path", "partition_values", "size", "tags", "dv_id", "dv_storage_type", "dv_path_or_inline_dv", "dv_offset",
    "dv_size_in_bytes", "dv_cardinality", "base_row_id", "default_row_commit_version",
]  # fmt: skip


INDEXED = ["indexed_version", "indexed_action_order"]  # where the skip index has a file that an add adds again


def removal(files: pa.Table, data_change: bool | None) -> pa.Table:
    """Committed files as rows of `Change.removes`."""
    return files.select([*KEY, *REMOVED]).append_column(
        "data_change", pa.repeat(pa.scalar(data_change, pa.bool_()), files.num_rows)
    )


@dataclass
class Change:
    """The staged actions of one table.

    base: the snapshot that was read; None when the table is new. after: the table as it will be.
    skip: the index of the table as it will be; known: all that its index holds, or was staged to hold.
    adds: one row per new file (`parquet.write_files`), or file that is added again (`operations.files.as_adds`).
    removes: live files that go (`removal`); without data_change when the same file is added again, whose path is then in a
    column `again`.
    foreign_files: some of the adds are files that were not written now, whose columns may be others than the table's.
    metrics: what statements say of themselves, beside what the files say.
    reads: what was read, as conditions on the skip index. A commit without reads and removes is a blind append.
    searches: the same of statements to which no row matters but those that they change: who took out others is not in their way.
    cdc: change data files (path, partition_values, size). Adds and removes whose rows they tell have a column `told`.
    written: files beside those of the adds, to be deleted should the commit fail.
    needs: (table's id, its adds) of files of old versions that are brought back: VACUUM must not take them before the commit.
    identity: the last values of identity columns, by physical name, that were taken for its rows.
    clustering: the columns that it is clustered by from now on, by their names in the files; None when that stays.
    info: what else the commitInfo says. copy_options: how its files are written, where not as the table's properties say.
    """

    base: Snapshot | None
    after: Snapshot
    skip: list[SkipColumn]
    known: list[SkipColumn] = field(default_factory=list)
    adds: list[pa.Table] = field(default_factory=list)
    removes: list[pa.Table] = field(default_factory=list)
    reads: list[Condition] = field(default_factory=list)
    searches: list[Condition] = field(default_factory=list)
    cdc: list[pa.Table] = field(default_factory=list)
    written: list[str] = field(default_factory=list)
    needs: list[tuple[int, pa.Table]] = field(default_factory=list)
    app_transactions: dict[str, int] = field(default_factory=dict)
    operation: str = "WRITE"
    parameters: dict[str, str] = field(default_factory=dict)
    user_metadata: str | None = None
    info: Mapping[str, Any] = field(default_factory=dict)
    copy_options: Mapping[str, str | int] = field(default_factory=dict)
    checkpoint: bool = True  # may a checkpoint follow?
    metrics: dict[str, int] = field(default_factory=dict)
    identity: dict[str, int] = field(default_factory=dict)
    clustering: tuple[tuple[str, ...], ...] | None = None
    dropped: bool = False
    foreign_files: bool = False

    @property
    def name(self) -> str:
        return self.after.name

    @property
    def replaces_metadata(self) -> bool:
        """Does it change schema, partitioning, properties, protocol or name?"""
        a, b = self.base, self.after
        return a is None or (a.schema, a.partition_columns, dict(a.configuration), a.protocol, a.description, a.name) != (
            b.schema, b.partition_columns, dict(b.configuration), b.protocol, b.description, b.name,
        )  # fmt: skip

    @property
    def replaces_layout(self) -> bool:
        """Will its files hold other columns than those before?"""
        a, b = self.base, self.after
        return a is None or (layout(a.schema), a.partition_columns) != (layout(b.schema), b.partition_columns)

    @property
    def changes_nothing(self) -> bool:
        said = self.app_transactions or self.replaces_metadata or self.clustering is not None
        return not (self.adds or self.removes or said or self.dropped)

    @property
    def adds_own_files(self) -> bool:
        """Does it add files below the table's own root?"""
        if not self.foreign_files:
            return bool(self.adds)
        return any(not path.startswith(("/", "file:/")) for adds in self.adds for path in adds["path"].to_pylist())

    def target(self) -> Target:
        """Where files of this change go."""
        a = self.after
        return Target(a.location, a.schema, a.partition_columns, a.configuration, self.skip, self.copy_options)

    def keeps_foreign_files(self) -> None:
        """Some of the adds are files that were not written now: they may lack columns that the table has."""
        self.foreign_files = True
        self.after = replace(self.after, uniform_since=NEVER_UNIFORM)

    def adds_again(self, files: pa.Table) -> None:
        """Some of the adds are of these files, which the table has: they have the columns that it had when they came."""
        if self.base is None or self.replaces_layout or pc.min(files["version"]).as_py() < self.base.uniform_since:
            self.keeps_foreign_files()

    def count(self, **numbers: int) -> None:
        """Add to the metrics."""
        for name, number in numbers.items():
            self.metrics[name] = self.metrics.get(name, 0) + number

    def require_removable(self) -> None:
        """ConstraintViolationError where rows may only be added."""
        if self.after.configuration.get("delta.appendOnly", "false").lower() == "true":
            raise ConstraintViolationError(
                f"table {self.name!r} is append-only (delta.appendOnly=true): rows cannot be removed or changed"
            )

    def copy(self) -> Change:
        """The same, to come back to when a statement fails."""
        return replace(
            self, adds=[*self.adds], removes=[*self.removes], reads=[*self.reads], searches=[*self.searches], cdc=[*self.cdc],
            metrics=dict(self.metrics), app_transactions=dict(self.app_transactions), parameters=dict(self.parameters),
            identity=dict(self.identity), needs=[*self.needs],
        )  # fmt: skip

    def removed_files(self) -> pa.Table | None:
        """All that go as one table; None when nothing does."""
        columns = [*KEY, *REMOVED, "data_change"]
        return pa.concat_tables([r.select(columns) for r in self.removes], promote_options="permissive") if self.removes else None

    def removed_keys(self) -> pa.Table | None:
        """The same, of which only (version, action_order, data_change) matter."""
        keys = [r.select([*KEY, "data_change"]) for r in self.removes]
        return pa.concat_tables(keys) if keys else None

    def added_files(self) -> pa.Table | None:
        """All new files as one table; None when there is none."""
        return pa.concat_tables(self.adds, promote_options="default") if self.adds else None

    def restaged(self, after: Snapshot, skip: list[SkipColumn]) -> Change:
        """The same change on the way to another schema."""
        return replace(self, after=after, skip=skip, known=[*self.known, *skip])


def layout(schema: Struct) -> list[tuple[str, str]]:
    """What of a schema the data files show: their columns and types, and not what the columns must or may hold."""
    return [(f.physical_name, to_duckdb(physical(f.type))) for f in schema]
