"""New tables: where they go, what protocol they need, what their index holds."""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from deltaduck import casts, clustering, frames, identity, rules, skip_index, storage
from deltaduck.changes import Change, layout
from deltaduck.errors import SchemaMismatchError, UnsupportedFeatureError
from deltaduck.protocol import log, mapping, row_tracking, stats, widening
from deltaduck.protocol.features import (
    CATALOG_MANAGED,
    FEATURE,
    IN_COMMIT_SINCE,
    IN_COMMIT_TIMESTAMP,
    WRITER_FEATURES,
    check_catalog_managed,
    check_change_columns,
    check_properties,
    protocol_for,
    upgraded,
    with_features,
)
from deltaduck.protocol.partitions import check_partition_type
from deltaduck.protocol.schema import Field, Struct, check_names, check_typed, from_duckdb, parse_schema
from deltaduck.snapshot import NEVER_UNIFORM, Snapshot

if TYPE_CHECKING:
    from deltaduck.transaction import Transaction

LONGEST_NAME = 120  # of a table's directory, in characters; a longer one ends in a digest


def create(
    tx: Transaction,
    name: str,
    schema: Struct,
    partition_by: Sequence[str] | None = None,
    configuration: Mapping[str, str] | None = None,
    description: str | None = None,
    location: str | None = None,
    cluster_by: Sequence[str] = (),
) -> Change:
    """Stage a new, empty table."""
    check_table_name(name)
    check_names(schema)
    check_typed(schema)
    partition_columns = checked_partitions(schema, partition_by or ())
    asked = {k: str(v) for k, v in (configuration or {}).items()}
    features = checked_features(name, [k.removeprefix(FEATURE) for k in asked if k.startswith(FEATURE)])
    configuration = {k: v for k, v in asked.items() if not k.startswith(FEATURE)}
    if CATALOG_MANAGED in features:
        configuration = {IN_COMMIT_TIMESTAMP: "true"} | configuration
    check_properties(configuration)
    configuration = row_tracking.completed({k: v for k, v in configuration.items() if k not in IN_COMMIT_SINCE})
    identity.check(schema, partition_columns)
    schema, configuration = mapping.assigned(schema, configuration)
    rules.validate(tx.lake.con.cursor(), schema, configuration)
    place = storage.normalize(location, tx.lake.catalog.access) if location else tx.lake.place(name)
    storage.make_root(place)
    after = Snapshot(
        table_id=-1, name=name, location=place, version=-1, latest=-1, uniform_since=NEVER_UNIFORM, has_files=False,
        metadata_version=-1, protocol_version=-1, commit_ms=-1,
        metadata_id=str(uuid.uuid4()), metadata_name=name, description=description, schema=schema,
        partition_columns=partition_columns, configuration=configuration, created_ms=None,
        protocol=with_features(protocol_for(schema, configuration), features),
    )  # fmt: skip
    check_catalog_managed(after.protocol, configuration, name)
    change = Change(None, after, index_columns(after, []), operation="CREATE TABLE")
    change.parameters = {"partitionBy": json.dumps(partition_columns), "properties": json.dumps(configuration, sort_keys=True)}
    if cluster_by:
        change = clustering.clustered(change, [tuple(c.split(".")) for c in cluster_by])
        change.parameters["clusterBy"] = json.dumps(list(cluster_by))
    tx.stage(change)
    return change


def check_table_name(name: str) -> None:
    if not name or name.lower().startswith("dl_") or "\0" in name:
        raise SchemaMismatchError(
            f"{name!r} cannot name a table: names are not empty and do not begin with dl_, which is the catalog's"
        )


def checked_features(table: str, features: Sequence[str]) -> set[str]:
    """Table features by their names. UnsupportedFeatureError for one that is not known."""
    if unknown := sorted({*features} - WRITER_FEATURES):
        raise UnsupportedFeatureError(
            f"table {table!r}: table feature {unknown[0]!r} is not supported; known: {', '.join(sorted(WRITER_FEATURES))}"
        )
    return {*features}


def place_name(name: str) -> str:
    """The directory name of a table: safe on every store, readable where the name is, never hidden, another place or too long."""
    safe = re.sub(r"[^A-Za-z0-9_.-]", lambda m: "".join(f"_{b:02x}" for b in m[0].encode()), name).replace("..", "_2e_2e")
    if safe.startswith(".") or safe.lower() == log.FOLDER:
        safe = f"_{ord(safe[0]):02x}{safe[1:]}"
    if len(safe) > LONGEST_NAME:  # the names of files in it need room too
        safe = f"{safe[:LONGEST_NAME]}_{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    return safe


def checked_partitions(schema: Struct, partition_by: Sequence[str] | str) -> tuple[str, ...]:
    """The partition columns as the schema spells them; SchemaMismatchError for one that cannot be."""
    partition_by = [partition_by] if isinstance(partition_by, str) else partition_by
    found = []
    for name in partition_by:
        f = schema.get(name)
        if f is None:
            raise SchemaMismatchError(f"partition column {name!r} is not among the columns: {', '.join(schema.names)}")
        check_partition_type(f.name, f.type)
        found.append(f.name)
    if len(set(found)) < len(found):
        raise SchemaMismatchError(f"a partition column is named twice: {', '.join(found)}")
    if found and len(found) == len(schema.fields):
        raise SchemaMismatchError("a table needs a column that it is not partitioned by")
    return tuple(found)


def index_columns(snapshot: Snapshot, found: Sequence[stats.SkipColumn]) -> list[stats.SkipColumn]:
    """The skip index that a table of this shape should have, going on from the one it has."""
    return skip_index.plan(found, stats.skip_columns(snapshot.schema, snapshot.partition_columns, snapshot.configuration))


def change_schema(
    change: Change, schema: Struct, partition_columns: Sequence[str] | None = None,
    configuration: Mapping[str, str] | None = None,
) -> Change:  # fmt: skip
    """The change with another schema (and partitioning, and properties) of its table."""
    check_typed(schema)
    parts = change.after.partition_columns if partition_columns is None else tuple(partition_columns)
    configuration = change.after.configuration if configuration is None else configuration
    if (schema, parts, configuration) == (change.after.schema, change.after.partition_columns, change.after.configuration):
        return change
    check_names(schema)
    check_change_columns(schema, configuration)
    schema, configuration = mapping.assigned(schema, configuration)
    same = (layout(schema), parts) == (layout(change.after.schema), change.after.partition_columns)
    after = replace(
        change.after, schema=schema, partition_columns=parts, configuration=configuration,
        uniform_since=change.after.uniform_since if same else NEVER_UNIFORM,
        protocol=upgraded(change.after.protocol, schema, configuration),
    )  # fmt: skip
    staged = change.restaged(after, index_columns(after, [*change.known, *change.skip]))
    staged.foreign_files |= bool(change.adds) and not same  # those that this transaction wrote before
    return staged


def evolved(change: Change, rows: Struct) -> Change:
    """The change with the columns that only rows have, and with their types where the table lets its own widen."""
    widen = widening.is_on(change.after.configuration)
    return change_schema(change, casts.merged(change.after.schema, rows, widen=widen))


def as_schema(connection: Any, schema: Any) -> Struct:
    """A schema given as a pyarrow Schema, as {column: SQL type [NOT NULL]}, or as the log's JSON text."""
    match schema:
        case Struct():
            return schema
        case pa.Schema():
            rows = frames.open_frame(connection, schema.empty_table())
            frames.release(rows)
            return rows.schema()
        case Mapping():
            return Struct(tuple(field_of(name, str(text)) for name, text in schema.items()))
        case str():
            return parse_schema(schema)
    if hasattr(schema, "to_json"):  # a Delta schema of our own, or of the deltalake package
        return parse_schema(schema.to_json())
    if hasattr(schema, "__arrow_c_schema__"):
        return as_schema(connection, pa.schema(schema))
    raise SchemaMismatchError(f"a schema is a pyarrow Schema or a dict of column to SQL type, not {type(schema).__name__}")


def field_of(name: str, text: str) -> Field:
    """A column of a DuckDB type, with NOT NULL behind it or not. SchemaMismatchError."""
    required = re.search(r"\s+NOT\s+NULL\s*$", text, re.IGNORECASE)
    kind = text[: required.start()] if required else text
    try:
        return Field(name, from_duckdb(duckdb.sqltype(kind), name), nullable=required is None)
    except duckdb.Error as e:
        raise SchemaMismatchError(f"column {name!r}: {kind!r} is no DuckDB type: {str(e).splitlines()[0]}") from e
