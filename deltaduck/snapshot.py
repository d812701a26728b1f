"""A table at a version: what the catalog says of it, and which files make it up."""

from __future__ import annotations

import datetime as dt
import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deltaduck import storage
from deltaduck.catalog import Catalog
from deltaduck.errors import LogCorruptError, TableNotFoundError, VersionNotFoundError
from deltaduck.predicate import Condition
from deltaduck.protocol.features import Protocol, check_readable
from deltaduck.protocol.schema import Struct, check_type_changes, logical_leaves, parse_schema, unmapped
from deltaduck.protocol.stats import SkipColumn, recorded
from deltaduck.protocol.stats import skip_columns as wanted_skip_columns

KEY = ["version", "action_order"]  # of a file: where in the log it was added
FEW_FILES = 64  # that are told one by one: more are told set by set
MAX_DEFINITIONS = 10_000  # kept in memory
NEVER_UNIFORM = 2**62  # as a `uniform_since`: any file may have other columns than the table


@dataclass(frozen=True)
class Snapshot:
    """A table as of one version. Cheap: files are looked up when asked for."""

    table_id: int
    name: str
    location: str
    version: int
    latest: int
    uniform_since: int  # files added from here on have exactly `latest`'s schema
    has_files: bool
    metadata_version: int  # the version whose metaData action is in force
    protocol_version: int
    commit_ms: int  # when this version was committed
    metadata_id: str
    metadata_name: str | None
    description: str | None
    schema: Struct
    partition_columns: tuple[str, ...]
    configuration: Mapping[str, str] = field(hash=False)
    created_ms: int | None
    protocol: Protocol

    @property
    def is_mapped(self) -> bool:
        """Have columns other names in the data files?"""
        return self.configuration.get("delta.columnMapping.mode", "none") != "none"


def load(catalog: Catalog, name: str, version: int | None = None) -> Snapshot:
    """The table at `version`, or now. TableNotFoundError, VersionNotFoundError, UnsupportedFeatureError."""
    if (found := find(catalog, name, version)) is None:
        raise not_found(catalog, name)
    return found


def find(catalog: Catalog, name: str, version: int | None = None) -> Snapshot | None:
    """The same; None when there is no table of that name."""
    if version is None:
        row = catalog.head(name)
    else:
        row = next(iter(catalog.rows("as_of", name_key=name.lower(), version=version)), None)
    if row is None:
        if version is not None and catalog.head(name):
            ((_, _, first, last),) = catalog.rows("version_at", name_key=name.lower(), at_ms=0)
            raise VersionNotFoundError(f"table {name!r} has no version {version}: it has versions {first} to {last}")
        return None
    table_id, table_name, location, at, latest, metadata_version, protocol_version, uniform_since, has_files, commit_ms = row
    d = _definition(catalog, table_id, metadata_version, protocol_version)
    check_readable(d.protocol, table_name)
    return replace(
        d,
        name=table_name,
        location=storage.Root(location, catalog.access),
        version=at,
        latest=latest,
        uniform_since=uniform_since,
        has_files=bool(has_files),
        commit_ms=commit_ms,
    )


def _definition(catalog: Catalog, table_id: int, metadata_version: int, protocol_version: int) -> Snapshot:
    """What metadata and protocol say of a table; read from the catalog once."""
    key = (table_id, metadata_version, protocol_version)
    if (known := catalog.definitions.get(key)) is None:
        rows = catalog.rows("definition", table_id=table_id, metadata_version=metadata_version, protocol_version=protocol_version)
        if not rows:
            raise LogCorruptError(
                f"the catalog lacks the metadata of version {metadata_version} or the protocol of version {protocol_version} "
                f"of the table with id {table_id}: deltaduck fsck says what is wrong"
            )
        ((*metadata, reader, writer, reader_features, writer_features),) = rows
        protocol = Protocol(reader, writer, parse_features(reader_features), parse_features(writer_features))
        known = defined(table_id, metadata_version, dict(zip(METADATA, metadata, strict=True)), protocol, protocol_version)
        if len(catalog.definitions) > MAX_DEFINITIONS:
            catalog.definitions.clear()
        catalog.definitions[key] = known
    return known


def defined(
    table_id: int, metadata_version: int, metadata: Mapping[str, Any], protocol: Protocol, protocol_version: int | None = None
) -> Snapshot:
    """A table as a row of ``dl_metadata_updates`` and a protocol define it, which came at the same version unless told."""
    return Snapshot(
        table_id=table_id, name="", location="", version=-1, latest=-1, uniform_since=-1, has_files=False,
        metadata_version=metadata_version, protocol_version=metadata_version if protocol_version is None else protocol_version,
        commit_ms=-1, **parse_metadata(metadata), protocol=protocol,
    )  # fmt: skip


def learn(catalog: Catalog, made: Snapshot | None, skip: Sequence[SkipColumn]) -> None:
    """Know what defines a table that a commit has made, and its index: nobody needs to ask. None: it has made none."""
    if made is None:
        return
    catalog.definitions[made.table_id, made.metadata_version, made.protocol_version] = made
    for kind in ("skip", "all skip"):
        catalog.definitions[made.table_id, made.metadata_version, kind] = list(skip)


METADATA = ("id", "name", "description", "schema_string", "partition_columns", "configuration", "created_time")


def parse_metadata(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of ``dl_metadata_updates`` as fields of a Snapshot. LogCorruptError for what cannot be read."""
    if row["schema_string"] is None:
        raise LogCorruptError("the metaData action has no schemaString")
    try:
        partitions = tuple(str(name) for name in json.loads(row["partition_columns"]))
        configuration = {str(k): str(v) for k, v in json.loads(row["configuration"]).items()}
    except (ValueError, TypeError, AttributeError, RecursionError) as e:
        raise LogCorruptError(f"the metaData action cannot be read: {e}") from e
    schema = parse_schema(row["schema_string"])
    check_type_changes(schema)
    if configuration.get("delta.columnMapping.mode", "none") == "none":
        schema = Struct(unmapped(schema).fields)  # type: ignore[union-attr]
    if unknown := [name for name in partitions if name not in schema.names]:
        raise LogCorruptError(f"the metaData action partitions by {unknown[0]!r}, which is no column of its schema")
    return {
        "metadata_id": row["id"], "metadata_name": row["name"], "description": row["description"], "schema": schema,
        "partition_columns": partitions, "configuration": configuration, "created_ms": row["created_time"],
    }  # fmt: skip


def parse_features(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(str(name) for name in json.loads(text))


def not_found(catalog: Catalog, name: str) -> TableNotFoundError:
    """The error for an unknown table, with the nearest names."""
    names = [row[0] for row in catalog.rows("list_tables")]
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]!r}?" if near else f"the lake has {', '.join(map(repr, names[:20])) or 'no tables yet'}"
    return TableNotFoundError(f"no table {name!r} in {catalog.name}; {hint}")


def version_at(catalog: Catalog, name: str, timestamp: dt.datetime | dt.date | str | int) -> int:
    """The newest version committed at or before a time. A naive time is in UTC, a number is in milliseconds."""
    at_ms = to_ms(timestamp)
    ((version, first_ms, first, last),) = catalog.rows("version_at", name_key=name.lower(), at_ms=at_ms)
    if last is None:
        raise not_found(catalog, name)
    if version is None:
        raise VersionNotFoundError(
            f"table {name!r} did not exist at {from_ms(at_ms)}: its version {first} was committed at {from_ms(first_ms)}"
        )
    return int(version)


def version_from(catalog: Catalog, name: str, timestamp: dt.datetime | dt.date | str) -> int:
    """The oldest version committed at or after a time."""
    at_ms = to_ms(timestamp)
    ((version,),) = catalog.rows("version_from", name_key=name.lower(), at_ms=at_ms)
    if version is None:
        raise VersionNotFoundError(f"table {name!r} has no version committed at {from_ms(at_ms)} or later")
    return int(version)


def to_ms(timestamp: dt.datetime | dt.date | str | int) -> int:
    """Milliseconds since the epoch, rounded down; VersionNotFoundError for text that is no time."""
    if isinstance(timestamp, int):
        return timestamp
    if isinstance(timestamp, str):
        try:
            timestamp = dt.datetime.fromisoformat(timestamp)
        except ValueError as e:
            raise VersionNotFoundError(
                f"{timestamp!r} is no timestamp: write it as 2024-12-31 or 2024-12-31T23:59:59+00:00"
            ) from e
    if not isinstance(timestamp, dt.datetime):
        timestamp = dt.datetime(timestamp.year, timestamp.month, timestamp.day)
    if timestamp.tzinfo is None:
        timestamp = timestamp.replace(tzinfo=dt.UTC)
    return (timestamp - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(milliseconds=1)


def from_ms(ms: int) -> str:
    return (dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(milliseconds=ms)).isoformat(timespec="milliseconds")


def skip_columns(catalog: Catalog, snapshot: Snapshot) -> list[SkipColumn]:
    """What the table's skip index holds of this snapshot's columns. Worked out once per metadata of the table."""
    key = (snapshot.table_id, snapshot.metadata_version, "skip")
    if (found := catalog.definitions.get(key)) is None:
        held = {(c.path, c.type, c.is_partition): c for c in all_skip_columns(catalog, snapshot)}
        wanted = wanted_skip_columns(snapshot.schema, snapshot.partition_columns, snapshot.configuration)
        found = catalog.definitions[key] = [held[column] for column in wanted if column in held]
    return list(found)


def by_name(columns: Sequence[SkipColumn], snapshot: Snapshot) -> list[SkipColumn]:
    """Columns of the skip index under the names that a predicate uses: the index has those of the data files."""
    if not snapshot.is_mapped:
        return list(columns)
    names = dict(logical_leaves(snapshot.schema))
    return [replace(c, path=names[c.path]) for c in columns if c.path in names]


def all_skip_columns(catalog: Catalog, snapshot: Snapshot) -> list[SkipColumn]:
    """What the table's skip index holds, columns of other versions included. Read once per metadata of the table."""
    key = (snapshot.table_id, snapshot.metadata_version, "all skip")
    if (found := catalog.definitions.get(key)) is None:
        rows = catalog.rows("skip_columns", table_id=snapshot.table_id)
        found = recorded(rows)
        catalog.definitions[key] = found
    return list(found)


def files(catalog: Catalog, snapshot: Snapshot, condition: Condition | None = None) -> pa.Table:
    """Live files of the snapshot that `condition` does not rule out, in the order they were added.

    Columns: version and action_order (the add's place in the log), path (as in the log: relative, URL-encoded),
    size, modification_time, partition_values (JSON), num_records, stats (JSON), tags, data_change.
    """
    params: dict[str, Any] = {"table_id": snapshot.table_id, "version": snapshot.version}
    if condition is None or condition.sql == "TRUE":
        found = catalog.fetch_few(catalog.sql("files"), params)
    else:
        rows = f"SELECT version, action_order FROM dl_skip_{snapshot.table_id} s WHERE {condition.sql}"
        keys = catalog.sql("keys_of_later_adds").replace("{keys}", rows)
        found = catalog.fetch_few(catalog.sql("files_of").replace("{keys}", keys), {**params, **condition.params})
    if snapshot.version < snapshot.latest:
        _require_files(catalog, snapshot, found)
    return in_order(found)


def among(keys: pa.Table) -> str:
    """SQL: is it one of these few (version, action_order)?"""
    orders: dict[int, list[int]] = {}
    for version, order in zip(*(keys[name].to_pylist() for name in KEY), strict=True):
        orders.setdefault(version, []).append(order)
    return " OR ".join(f"version = {v} AND action_order IN ({', '.join(map(str, o))})" for v, o in orders.items())


def in_order(files: pa.Table) -> pa.Table:
    """Files as they were added."""
    version, order = (_numbers(files[name]) for name in KEY)
    places = version * (1 << 32) + order
    return files if (np.diff(places) >= 0).all() else files.take(pa.array(np.argsort(places, kind="stable")))


def _numbers(column: pa.ChunkedArray) -> Any:
    """A column without NULLs for NumPy: `to_numpy` would import pandas, which takes longer than to plan a query."""
    return np.from_dlpack(column.combine_chunks())


def having(files: pa.Table, column: str) -> pa.Table:
    """Those that have a value in a column; mostly that is all of them."""
    return files.filter(pc.is_valid(files[column])) if files[column].null_count else files


def _require_files(catalog: Catalog, snapshot: Snapshot, files: pa.Table) -> None:
    """VersionNotFoundError when VACUUM has deleted any of these files of an old version."""
    gone = {path for (path,) in catalog.rows("deleted_paths", table_id=snapshot.table_id, version=snapshot.version)}
    if gone and (missing := [path for path in files["path"].to_pylist() if path in gone]):
        ((whole,),) = catalog.rows("first_whole_version", table_id=snapshot.table_id)
        raise VersionNotFoundError(
            f"table {snapshot.name!r} cannot be read at version {snapshot.version}: VACUUM has deleted {len(missing)} of its "
            f"files, such as {missing[0]}; versions from {whole} on are whole"
        )
