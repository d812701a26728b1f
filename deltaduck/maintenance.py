"""``DeltaTable.alter`` and ``DeltaTable.optimize``, with the names that the ``deltalake`` package gives them."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from deltaduck import rules
from deltaduck.errors import SchemaMismatchError, UnsupportedFeatureError
from deltaduck.operations import alter, optimize, statistics
from deltaduck.operations.create import as_schema, field_of
from deltaduck.protocol.schema import Field, Struct, literal, parse_schema, quote

if TYPE_CHECKING:
    from deltaduck.table import DeltaTable
    from deltaduck.transaction import Transaction

Filters = Sequence[tuple[str, str, Any]]


class TableAlterer:
    """Changes what a table is; each call is a commit of its own, which says what `commit_properties` tells it."""

    def __init__(self, table: DeltaTable) -> None:
        self._table = table

    def add_columns(self, fields: Any, *, commit_properties: Any = None, post_commithook_properties: Any = None) -> None:
        """Add columns at the end, and to structs that exist the fields that they lack; rows that exist have NULL in them.

        fields: a pyarrow Schema, {column: SQL type}, or a field (or list of fields) of pyarrow or deltalake.
        """
        with self._table._change(None, commit_properties, post_commithook_properties) as tx:
            schema = self._table._snapshot().schema
            alter.add_columns(tx, self._table.name, list(_new(schema, _fields(tx.lake.con, fields))))

    def rename_column(
        self, column: str, name: str, *, commit_properties: Any = None,
        post_commithook_properties: Any = None,
    ) -> None:  # fmt: skip
        """Give a column (``a.b`` of a struct) another name; needs column mapping. No file is written."""
        with self._table._change(None, commit_properties, post_commithook_properties) as tx:
            alter.rename_column(tx, self._table.name, tuple(column.split(".")), name)

    def drop_columns(
        self, columns: str | Sequence[str], raise_if_not_exists: bool = True, *, commit_properties: Any = None,
        post_commithook_properties: Any = None,
    ) -> None:  # fmt: skip
        """Drop columns (``a.b`` of a struct); needs column mapping. Older versions still show them."""
        paths = [tuple(c.split(".")) for c in ([columns] if isinstance(columns, str) else columns)]
        with self._table._change(None, commit_properties, post_commithook_properties) as tx:
            alter.drop_columns(tx, self._table.name, paths, missing_ok=not raise_if_not_exists)

    def set_column_type(
        self, column: str, data_type: str, *, commit_properties: Any = None,
        post_commithook_properties: Any = None,
    ) -> None:  # fmt: skip
        """Widen the type of a column (``a.b`` of a struct, ``l.element`` of a list); needs ``delta.enableTypeWidening``."""
        with self._table._change(None, commit_properties, post_commithook_properties) as tx:
            alter.set_type(tx, self._table.name, tuple(column.split(".")), field_of(column, data_type).type)

    def cluster_by(
        self, columns: str | Sequence[str] | None, *, commit_properties: Any = None, post_commithook_properties: Any = None
    ) -> None:
        """Cluster the table by other columns (``a.b`` of a struct), or by none: what ``optimize()`` sorts rows by."""
        named = [columns] if isinstance(columns, str) else columns or []
        with self._table._change(None, commit_properties, post_commithook_properties) as tx:
            alter.cluster_by(tx, self._table.name, [tuple(c.split(".")) for c in named])

    def add_constraint(
        self, constraints: Mapping[str, str], *, commit_properties: Any = None,
        post_commithook_properties: Any = None,
    ) -> None:  # fmt: skip
        """Add CHECK constraints, {name: expression}. ConstraintViolationError when rows that exist break one."""
        with self._table._change(None, commit_properties, post_commithook_properties) as tx:
            for name, expression in constraints.items():
                alter.add_constraint(tx, self._table.name, name, expression)

    def drop_constraint(
        self, name: str, raise_if_not_exists: bool = True, *, commit_properties: Any = None,
        post_commithook_properties: Any = None,
    ) -> None:  # fmt: skip
        """End a CHECK constraint."""
        with self._table._change(None, commit_properties, post_commithook_properties) as tx:
            alter.drop_constraint(tx, self._table.name, name, missing_ok=not raise_if_not_exists)

    def add_feature(
        self, feature: Any, allow_protocol_versions_increase: bool = False, *, commit_properties: Any = None,
        post_commithook_properties: Any = None,
    ) -> None:  # fmt: skip
        """Add table features, by their names in the protocol or deltalake's TableFeatures."""
        features = [_feature_name(f) for f in (feature if isinstance(feature, list | tuple) else [feature])]
        protocol = self._table._snapshot().protocol
        if protocol.min_writer_version < 7 and not allow_protocol_versions_increase:
            raise UnsupportedFeatureError(
                f"table {self._table.name!r} has writer version {protocol.min_writer_version}, and features need 7: "
                "allow_protocol_versions_increase=True raises it"
            )
        with self._table._change(None, commit_properties, post_commithook_properties) as tx:
            alter.add_features(tx, self._table.name, features)

    def set_table_properties(
        self, properties: Mapping[str, str], raise_if_not_exists: bool = True, *, commit_properties: Any = None,
        post_commithook_properties: Any = None,
    ) -> None:  # fmt: skip
        """Set table properties. raise_if_not_exists: an unknown ``delta.`` property is an error, else it is left out."""
        if not raise_if_not_exists:
            properties = {k: v for k, v in properties.items() if alter.is_property(k)}
        with self._table._change(None, commit_properties, post_commithook_properties) as tx:
            alter.set_properties(tx, self._table.name, properties)

    def unset_table_properties(
        self, keys: Sequence[str], raise_if_not_exists: bool = True, *, commit_properties: Any = None,
        post_commithook_properties: Any = None,
    ) -> None:  # fmt: skip
        """Take table properties away."""
        with self._table._change(None, commit_properties, post_commithook_properties) as tx:
            alter.unset_properties(tx, self._table.name, keys, missing_ok=not raise_if_not_exists)

    def set_table_name(self, name: str, *, commit_properties: Any = None, post_commithook_properties: Any = None) -> None:
        """Rename the table in its lake. Its place and history stay."""
        with self._table._change(None, commit_properties, post_commithook_properties) as tx:
            alter.rename(tx, self._table.name, name)
        self._table.name = name

    def set_table_description(
        self, description: str, *, commit_properties: Any = None,
        post_commithook_properties: Any = None,
    ) -> None:  # fmt: skip
        """Say what the table is."""
        with self._table._change(None, commit_properties, post_commithook_properties) as tx:
            alter.set_description(tx, self._table.name, description)

    def set_column_metadata(
        self, column: str, metadata: Mapping[str, str], *, commit_properties: Any = None,
        post_commithook_properties: Any = None,
    ) -> None:  # fmt: skip
        """Set metadata of a column (``a.b`` of a struct), such as its comment. What the protocol acts on is refused."""
        if acted := [k for k in metadata if k.startswith("delta.") or k == rules.DEFAULT]:
            raise UnsupportedFeatureError(f"column metadata {acted[0]!r} has a meaning of its own: use ALTER TABLE")
        with self._table._change(None, commit_properties, post_commithook_properties) as tx:
            alter.set_column_metadata(tx, self._table.name, tuple(column.split(".")), metadata)

    def set_column_not_null(
        self, column_name: str, *, commit_properties: Any = None,
        post_commithook_properties: Any = None,
    ) -> None:  # fmt: skip
        """The column must have a value from now on. ConstraintViolationError when rows that exist have none."""
        with self._table._change(None, commit_properties, post_commithook_properties) as tx:
            alter.set_not_null(tx, self._table.name, tuple(column_name.split(".")), True)

    def drop_column_not_null(
        self, column_name: str, *, commit_properties: Any = None,
        post_commithook_properties: Any = None,
    ) -> None:  # fmt: skip
        """The column need not have a value."""
        with self._table._change(None, commit_properties, post_commithook_properties) as tx:
            alter.set_not_null(tx, self._table.name, tuple(column_name.split(".")), False)


class TableOptimizer:
    """Lays a table's rows out anew; each call commits. Nobody's append or delete of other files fails because of it."""

    def __init__(self, table: DeltaTable) -> None:
        self._table = table

    def __call__(self) -> dict[str, Any]:
        return self.compact()

    def compact(
        self, partition_filters: Filters | None = None, target_size: int | None = None,
        max_concurrent_tasks: int | None = None, max_spill_size: int | None = None, max_temp_directory_size: int | None = None,
        min_commit_interval: int | dt.timedelta | None = None, writer_properties: Any = None, *, commit_properties: Any = None,
        post_commithook_properties: Any = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Put small files of a partition together, up to `target_size` bytes (``delta.targetFileSize``, else 256 MiB).

        What is done is committed every 10 GiB, or every `min_commit_interval` (seconds; 0 is a commit per file).
        DuckDB decides on threads and spilling: max_concurrent_tasks and the sizes are accepted and not needed."""
        where = _where(partition_filters)
        tell = self._tell(writer_properties, commit_properties, post_commithook_properties)
        interval = _seconds(min_commit_interval)
        return _told(optimize.compact(self._table._lake, self._table.name, where, target_size, tell, interval))

    def cluster(
        self, target_size: int | None = None, *, full: bool = False, writer_properties: Any = None,
        commit_properties: Any = None, post_commithook_properties: Any = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Sort rows by the columns that the table is clustered by, where they are not yet; full: all of them anew."""
        tell = self._tell(writer_properties, commit_properties, post_commithook_properties)
        return _told(optimize.cluster(self._table._lake, self._table.name, target_size, tell, full=full))

    def z_order(
        self, columns: Iterable[str], partition_filters: Filters | None = None, target_size: int | None = None,
        max_concurrent_tasks: int | None = None, max_spill_size: int | None = None, max_temp_directory_size: int | None = None,
        min_commit_interval: int | dt.timedelta | None = None, writer_properties: Any = None, *, commit_properties: Any = None,
        post_commithook_properties: Any = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Sort the rows of each partition along a Z-curve over `columns`, so that predicates on any of them skip files.

        Partitions that are done are committed every 10 GiB, or every `min_commit_interval` (seconds; 0 is one by one)."""
        where = _where(partition_filters)
        names = [columns] if isinstance(columns, str) else list(columns)
        tell = self._tell(writer_properties, commit_properties, post_commithook_properties)
        interval = _seconds(min_commit_interval)
        return _told(optimize.z_order(self._table._lake, self._table.name, names, where, target_size, tell, interval))

    def statistics(self, *, commit_properties: Any = None, post_commithook_properties: Any = None) -> dict[str, int]:
        """Compute the statistics of all files anew, from their rows; how many files. No file is written."""
        with self._table._change(None, commit_properties, post_commithook_properties) as tx:
            return statistics.recompute(tx, self._table.name)

    def _tell(self, *told: Any) -> Callable[[Transaction], None]:
        return lambda tx: self._table._tell(tx, *told)


def _told(metrics: dict[str, Any]) -> dict[str, Any]:
    """Metrics as the ``deltalake`` package tells them: what is said of the files is JSON."""
    return {k: json.dumps(v, separators=(",", ":")) if isinstance(v, dict) else v for k, v in metrics.items()}


def _where(filters: Filters | None) -> str | None:
    return None if not filters else " AND ".join(_condition(*f) for f in filters)


def _seconds(interval: int | dt.timedelta | None) -> float | None:
    seconds = interval.total_seconds() if isinstance(interval, dt.timedelta) else interval
    if seconds is not None and seconds < 0:
        raise SchemaMismatchError(f"min_commit_interval is {interval}: it is a number of seconds, or a timedelta, from 0 on")
    return seconds


def _condition(column: str, operator: str, value: Any) -> str:
    """SQL of one of deltalake's partition filters; values are texts, as in the log."""
    if operator.lower() in ("in", "not in"):
        return f"CAST({quote(column)} AS VARCHAR) {operator} ({', '.join(literal(str(v)) for v in value)})"
    if operator not in ("=", "!=", "<", ">", "<=", ">="):
        raise SchemaMismatchError(f"partition filter {operator!r} is unknown: it is =, !=, <, >, <=, >=, in or not in")
    return f"{quote(column)} {operator} {literal(str(value))}" if value not in (None, "") else f"{quote(column)} IS NULL"


def _fields(con: Any, fields: Any) -> list[Field]:
    if isinstance(fields, pa.Schema | Mapping):
        return list(as_schema(con, fields))
    every = list(fields) if isinstance(fields, list | tuple) else [fields]
    if all(isinstance(f, pa.Field) for f in every):
        return list(as_schema(con, pa.schema(every)))
    if not all(hasattr(f, "to_json") for f in every):
        raise SchemaMismatchError("columns are a pyarrow Schema, {column: SQL type}, or fields of pyarrow or deltalake")
    members = [json.loads(f.to_json()) for f in every]
    return list(parse_schema(json.dumps({"type": "struct", "fields": members})))


def _new(schema: Struct, fields: Iterable[Field], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Field, None]]:
    """What is new in fields: themselves, or in the place of a struct that exists, what that lacks."""
    for f in fields:
        known = schema.get(f.name)
        if known is not None and isinstance(known.type, Struct) and isinstance(f.type, Struct):
            yield from _new(known.type, f.type, (*path, known.name))
        elif known is None or not path or known.type != f.type:
            yield path, f, None


def _feature_name(feature: Any) -> str:
    """A feature by the protocol's name: deltalake's members are spelt AppendOnly."""
    name = feature if isinstance(feature, str) else getattr(feature, "name", None) or str(feature).rsplit(".", maxsplit=1)[-1]
    known = {n.lower(): n for n in alter.FEATURES}
    return known.get(name.replace("_", "").lower(), name)
