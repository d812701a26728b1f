"""Changing what a table is: columns, constraints, properties, name. Nothing here touches a data file."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from deltaduck import clustering, rules, scan
from deltaduck import predicate as predicates
from deltaduck.changes import Change
from deltaduck.errors import ConstraintViolationError, SchemaMismatchError, TableExistsError, UnsupportedFeatureError
from deltaduck.operations.create import change_schema, check_table_name, checked_features, index_columns
from deltaduck.protocol import mapping, row_tracking, widening
from deltaduck.protocol.features import (
    CATALOG_MANAGED,
    FEATURE,
    PROPERTIES,
    WRITER_FEATURES,
    check_catalog_managed,
    check_properties,
    check_writable,
    upgraded,
    with_features,
    writer_features,
)
from deltaduck.protocol.schema import Array, DataType, Field, Map, Struct, parse_schema, quote, to_duckdb, to_json
from deltaduck.protocol.stats import STATS_COLUMNS
from deltaduck.rules import CONSTRAINT, DEFAULT, GENERATED

if TYPE_CHECKING:
    from deltaduck.transaction import Transaction

Path = tuple[str, ...]
FEATURES = WRITER_FEATURES


def is_property(key: str) -> bool:
    """Is it one that a table may have: known, or the user's own?"""
    return not key.startswith("delta.") or key in PROPERTIES or key.startswith(FEATURE)


def add_columns(
    tx: Transaction, table: str, columns: Sequence[tuple[Path, Field, str | None]], *, missing_only: bool = False
) -> None:
    """Stage new columns: (where it goes, itself, None for the end or FIRST or the column that it follows). Rows that
    exist have NULL in them."""
    change = begin(tx, table)
    schema = change.after.schema
    for path, f, place in columns:
        name = ".".join((*path, f.name))
        if missing_only and _has(schema, (*path, f.name)):
            continue
        if not f.nullable:
            raise SchemaMismatchError(
                f"table {table!r}: column {name!r} cannot be added as NOT NULL, rows have no value for it: add it, UPDATE the "
                "rows, then ALTER COLUMN ... SET NOT NULL"
            )
        if {DEFAULT, GENERATED} & {*f.metadata}:
            raise UnsupportedFeatureError(
                f"table {table!r}: column {name!r} is added without a default or expression, which rows that exist do not have; "
                "a default for new rows: ALTER COLUMN ... SET DEFAULT"
            )
        schema = _added(schema, path, f, place, name)
    fields = [{"column": json.loads(to_json(Struct((f,))))["fields"][0]} for _, f, _ in columns]
    _stage(tx, change, "ADD COLUMNS", {"columns": json.dumps(fields)}, schema=schema)


def rename_column(tx: Transaction, table: str, path: Path, name: str) -> None:
    """Stage another name of a column, or of a struct's field. Files, statistics and older versions keep what they have."""
    change = begin(tx, table)
    after = change.after
    mapping.require(table, after.configuration, "RENAME COLUMN")
    _require_free(change, path, "renamed")

    def members(struct: Struct) -> Struct:
        if (other := struct.get(name)) is not None and other.name.lower() != path[-1].lower():
            raise SchemaMismatchError(f"table {table!r}: column {'.'.join((*path[:-1], name))!r} exists already")
        return _edited(struct, path[-1:], lambda f: replace(f, name=name))

    schema = _in_struct(after.schema, path, members)
    old, new = ".".join(path), ".".join((*path[:-1], name))
    parts = after.partition_columns
    if len(path) == 1:
        parts = tuple(name if p.lower() == path[0].lower() else p for p in parts)
    configuration = dict(after.configuration)
    if named := configuration.get(STATS_COLUMNS):
        configuration[STATS_COLUMNS] = ",".join(_followed(c.strip().strip("`"), old, new) for c in named.split(","))
    parameters = {"oldColumnPath": old, "newColumnPath": new}
    _stage(tx, change, "RENAME COLUMN", parameters, schema=schema, configuration=configuration, partition_columns=parts)


def drop_columns(tx: Transaction, table: str, paths: Sequence[Path], *, missing_ok: bool = False) -> None:
    """Stage the end of columns, or of struct fields. Files keep what they have, and older versions show it."""
    change = begin(tx, table)
    schema = change.after.schema
    for path in paths:
        if missing_ok and not _has(schema, path):
            continue
        _edited(schema, path, lambda f: f)  # is it there?
        if len(path) == 1 and path[0].lower() in (p.lower() for p in change.after.partition_columns):
            raise SchemaMismatchError(
                f"table {table!r}: {path[0]!r} is a partition column, which cannot be dropped: write the table anew, with "
                "mode='overwrite', schema_mode='overwrite' and another partition_by"
            )
        mapping.require(table, change.after.configuration, "DROP COLUMN")
        _require_free(change, path, "dropped")

        def members(struct: Struct, path: Path = path) -> Struct:
            rest = struct.without(path[-1:])
            if not rest.fields:
                raise SchemaMismatchError(f"table {table!r}: {'.'.join(path)!r} is the last of its kind: drop what it is in")
            return rest

        schema = _in_struct(schema, path, members)
    if not schema.without(change.after.partition_columns).fields:
        raise SchemaMismatchError(f"table {table!r}: a table needs a column that it is not partitioned by")
    clustering.require_free(tx.lake.catalog, change, schema)
    _require_readable(tx, change, schema)
    parameters = {"columns": json.dumps([".".join(path) for path in paths])}
    _stage(tx, change, "DROP COLUMNS", parameters, schema=schema)


def set_type(tx: Transaction, table: str, path: Path, type_: DataType) -> None:
    """Stage a wider type of a column, of a field, or of a list's or map's members. Files keep the type that they have."""
    change = begin(tx, table)
    if not isinstance(type_, str):
        raise SchemaMismatchError(f"table {table!r}: {'.'.join(path)!r} can get another plain type, not {to_duckdb(type_)}")
    _require_free(change, path, "retyped")
    schema = widening.widened(change.after.schema, path, type_)
    widening.require(table, change.after.configuration)
    _stage(tx, change, "CHANGE COLUMN", {"column": json.dumps({"name": ".".join(path), "type": type_})}, schema=schema)


def move_column(tx: Transaction, table: str, path: Path, place: str) -> None:
    """Stage another place of a column, or of a field in its struct: FIRST, or behind the one that is named."""
    change = begin(tx, table)
    found: list[Field] = []

    def others(struct: Struct) -> Struct:
        found.extend(f for f in struct if f.name.lower() == path[-1].lower())
        return struct.without(path[-1:])

    _edited(change.after.schema, path, lambda f: f)  # is it there?
    rest = _in_struct(change.after.schema, path, others)
    schema = _added(rest, path[:-1], found[0], place, ".".join(path))
    position = {"position": place.lower() if place == "FIRST" else f"after {place}"}
    _stage(tx, change, "CHANGE COLUMN", {"column": json.dumps({"name": ".".join(path)} | position)}, schema=schema)


def change_column(tx: Transaction, table: str, path: Path, edit: Callable[[Field], Field]) -> None:
    """Stage another comment, default or other metadata of a column, nested ones included."""
    change = begin(tx, table)
    schema = _edited(change.after.schema, path, edit)
    _stage(tx, change, "CHANGE COLUMN", {"column": json.dumps(".".join(path))}, schema=schema)


def set_column_metadata(tx: Transaction, table: str, path: Path, metadata: Mapping[str, Any]) -> None:
    """Stage metadata of a column beside what it has."""
    change_column(tx, table, path, lambda f: replace(f, metadata={**f.metadata, **metadata}))


def set_not_null(tx: Transaction, table: str, path: Path, required: bool) -> None:
    """Stage that a column must (or need not) have a value. ConstraintViolationError when rows that exist have none."""
    change = begin(tx, table)
    schema = _edited(change.after.schema, path, lambda f: replace(f, nullable=not required))
    if required:
        known = {r.says for r in rules.check_rules(change.after.schema, {})}
        only = tx.compile(change.after, predicates.parse(f"{quote(path[0])} IS NULL")) if len(path) == 1 else None
        for r in rules.check_rules(schema, {}):
            if r.says not in known:
                _check_rows(tx, change, r, only)
    _stage(tx, change, "CHANGE COLUMN", {"column": json.dumps(".".join(path))}, schema=schema)


def set_default(tx: Transaction, table: str, column: str, expression: str | None) -> None:
    """Stage the value of a column in new rows that say nothing of it."""

    def edit(f: Field) -> Field:
        if rules.IDENTITY in f.metadata:
            raise SchemaMismatchError(f"table {table!r}: identity column {f.name!r} has values of its own, and no default")
        metadata = {k: v for k, v in f.metadata.items() if k != DEFAULT}
        return replace(f, metadata=metadata if expression is None else {**metadata, DEFAULT: rules.to_log(expression)})

    change_column(tx, table, (column,), edit)


def cluster_by(tx: Transaction, table: str, columns: Sequence[Path]) -> None:
    """Stage the columns that OPTIMIZE lays rows near each other by; none ends that. Files stay as they are until then."""
    change = begin(tx, table)
    old = clustering.names(clustering.current(tx.lake.catalog, change), change.after.schema)
    new = [".".join(path) for path in columns]
    parameters = {"oldClusteringColumns": ",".join(old), "newClusteringColumns": ",".join(new)}
    _stage(tx, clustering.clustered(change, columns), "CLUSTER BY", parameters)


def add_constraint(tx: Transaction, table: str, name: str | None, expression: str) -> None:
    """Stage a CHECK constraint; one without a name gets a number. ConstraintViolationError when rows that exist break it."""
    change = begin(tx, table)
    if name is None:
        name = next(n for n in map("check_{}".format, itertools.count(1)) if CONSTRAINT + n not in change.after.configuration)
    key, text = CONSTRAINT + name.lower(), rules.to_log(expression)
    if key in change.after.configuration:
        raise SchemaMismatchError(f"table {table!r} has a constraint {name!r} already: drop it first, or choose another name")
    configuration = {**change.after.configuration, key: text}
    rules.validate(tx.lake.con.cursor(), change.after.schema, configuration)
    _check_rows(tx, change, rules.rule(f"CHECK constraint {name.lower()!r} ({text})", text))
    _stage(tx, change, "ADD CONSTRAINT", {"name": name, "expr": text}, configuration=configuration)


def drop_constraint(tx: Transaction, table: str, name: str, *, missing_ok: bool = False) -> None:
    """Stage the end of a CHECK constraint."""
    change = begin(tx, table)
    key = next((k for k in change.after.configuration if k.lower() == (CONSTRAINT + name).lower()), None)
    if key is None:
        if missing_ok:
            return
        names = [k.removeprefix(CONSTRAINT) for k in change.after.configuration if k.startswith(CONSTRAINT)]
        raise SchemaMismatchError(f"table {table!r} has no constraint {name!r}; it has {', '.join(names) or 'none'}")
    rest = {k: v for k, v in change.after.configuration.items() if k != key}
    _stage(tx, change, "DROP CONSTRAINT", {"name": name, "existed": "true"}, configuration=rest)


def set_properties(tx: Transaction, table: str, properties: Mapping[str, str]) -> None:
    """Stage table properties; ``delta.feature.<name> = supported`` adds a table feature."""
    change = begin(tx, table)
    if constraints := [k for k in properties if k.startswith(CONSTRAINT)]:
        raise UnsupportedFeatureError(f"{constraints[0]} is set by ALTER TABLE {table} ADD CONSTRAINT, which checks the rows")
    features = [k.removeprefix(FEATURE) for k in properties if k.startswith(FEATURE)]
    plain = {k: v for k, v in properties.items() if not k.startswith(FEATURE)}
    check_properties(plain)
    old: Mapping[str, str] = change.after.configuration
    new: Mapping[str, str] = {**old, **plain}
    if mapping.MAX_ID in plain:
        raise UnsupportedFeatureError(f"table {table!r}: {mapping.MAX_ID} is counted, it cannot be set")
    mapping.check_change(table, old, new)
    change = _with_features(change, features)
    parameters = {"properties": json.dumps(dict(properties), sort_keys=True)}
    schema = None
    if mapping.mode(old) != mapping.mode(new):
        schema, new = mapping.assigned(change.after.schema, new, keep_names=True)
    _stage(tx, change, "SET TBLPROPERTIES", parameters, schema=schema, configuration=row_tracking.completed(new))


def unset_properties(tx: Transaction, table: str, keys: Sequence[str], *, missing_ok: bool = False) -> None:
    """Stage the end of table properties."""
    change = begin(tx, table)
    missing = [k for k in keys if k not in change.after.configuration]
    if missing and not missing_ok:
        raise UnsupportedFeatureError(
            f"table {table!r} has no property {missing[0]!r}; UNSET TBLPROPERTIES IF EXISTS lets that pass"
        )
    rest = {k: v for k, v in change.after.configuration.items() if k not in keys}
    mapping.check_change(table, change.after.configuration, rest)
    if mapping.MAX_ID in keys:
        raise UnsupportedFeatureError(f"table {table!r}: {mapping.MAX_ID} is counted, it cannot be unset")
    parameters = {"properties": json.dumps(list(keys)), "ifExists": str(missing_ok).lower()}
    _stage(tx, change, "UNSET TBLPROPERTIES", parameters, configuration=rest)


def add_features(tx: Transaction, table: str, features: Sequence[str]) -> None:
    """Stage table features, which nothing uses yet."""
    _stage(tx, _with_features(begin(tx, table), features), "ADD FEATURE", {"feature": json.dumps(list(features))})


def set_description(tx: Transaction, table: str, description: str | None) -> None:
    """Stage what the table says of itself."""
    change = begin(tx, table)
    change.after = replace(change.after, description=description)
    _stage(tx, change, "UPDATE TABLE METADATA", {"metadata_update": json.dumps({"description": description})})


def rename(tx: Transaction, table: str, name: str) -> None:
    """Stage another name. The table's place, log and history stay."""
    change = begin(tx, table)
    check_table_name(name)
    if name.lower() != table.lower() and tx.find(name) is not None:
        raise TableExistsError(f"table {name!r} exists already: choose another name for {table!r}, or drop it")
    after = replace(change.after, name=name, metadata_name=name)
    tx.rename(change, after)
    _stage(tx, change, "RENAME TABLE", {"name": name})


# --- inside


def begin(tx: Transaction, table: str) -> Change:
    """The change of a table that may be written. TableNotFoundError, UnsupportedFeatureError."""
    change = tx.change(table)
    if change is None:
        raise tx.lake.not_found(table)
    check_writable(change.after.protocol, change.name)
    return change


def _stage(
    tx: Transaction, change: Change, operation: str, parameters: dict[str, str], *,
    schema: Struct | None = None, configuration: Mapping[str, str] | None = None,
    partition_columns: Sequence[str] | None = None,
) -> None:  # fmt: skip
    """The change with another schema or configuration, each rule of which can be evaluated."""
    if schema is not None:
        changed = change_schema(change, schema, partition_columns, configuration)
        rules.validate(tx.lake.con.cursor(), schema, changed.after.configuration)
    elif configuration is not None:
        protocol = upgraded(change.after.protocol, change.after.schema, configuration)
        after = replace(change.after, configuration=configuration, protocol=protocol)
        changed = change.restaged(after, index_columns(after, [*change.known, *change.skip]))
    else:
        changed = change
    check_catalog_managed(changed.after.protocol, changed.after.configuration, change.name)
    if changed.base is not None:
        changed.operation, changed.parameters = operation, parameters
    tx.stage(changed)


def _with_features(change: Change, features: Sequence[str]) -> Change:
    known = checked_features(change.name, features)
    if CATALOG_MANAGED in known - writer_features(change.after.protocol):
        raise UnsupportedFeatureError(
            f"table {change.name!r} has readers who know it by its path: {CATALOG_MANAGED} is given to a new table "
            f"(CREATE TABLE ... TBLPROPERTIES ('{FEATURE}{CATALOG_MANAGED}' = 'supported')), filled from this one"
        )
    return replace(change, after=replace(change.after, protocol=with_features(change.after.protocol, known)))


def _check_rows(tx: Transaction, change: Change, r: rules.Rule, only: Any = None) -> None:
    """ConstraintViolationError when rows of the table break the rule. only: the files that could hold such rows."""
    con = tx.lake.con.cursor()
    try:
        rules.check_existing(con, scan.scan_sql(con, change.after, tx.visible(change.after, only)), r, change.after.schema.names)
    except ConstraintViolationError as e:
        raise ConstraintViolationError(f"table {change.name!r}: {e}") from None


def _followed(column: str, old: str, new: str) -> str:
    """The name of a column, or of something in it, that may have been renamed."""
    return new + column[len(old) :] if f"{column}.".lower().startswith(f"{old}.".lower()) else column


def _require_free(change: Change, path: Path, done: str) -> None:
    """SchemaMismatchError when a rule speaks of the column."""
    if says := rules.dependent(change.after.schema, change.after.configuration, path):
        raise SchemaMismatchError(
            f"table {change.name!r}: column {'.'.join(path)!r} cannot be {done}: {says} needs it; drop that first"
        )


def _require_readable(tx: Transaction, change: Change, schema: Struct) -> None:
    """SchemaMismatchError when a struct would have no field that all of its files have: DuckDB cannot read those."""
    if change.base is None:
        return
    kept = dict(_structs(schema))
    for (text,) in tx.lake.catalog.rows("schema_strings", table_id=change.base.table_id):
        for path, fields in _structs(parse_schema(text)):
            if path in kept and not fields & kept[path]:
                raise SchemaMismatchError(
                    f"table {change.name!r}: nothing that the first files had of {'.'.join(path)!r} would remain in it, and they "
                    "could not be read: drop all of it"
                )


def _structs(type_: DataType, path: Path = ()) -> Iterator[tuple[Path, frozenset[str]]]:
    """(path, names of its fields) of every struct below the columns, as the data files name them."""
    match type_:
        case Struct(fields):
            if path:
                yield path, frozenset(f.physical_name for f in fields)
            for f in fields:
                yield from _structs(f.type, (*path, f.physical_name))
        case Array(element, _):
            yield from _structs(element, (*path, "element"))
        case Map(key, value, _):
            yield from _structs(key, (*path, "key"))
            yield from _structs(value, (*path, "value"))


def _in_struct(schema: Struct, path: Path, edit: Callable[[Struct], Struct]) -> Struct:
    """The schema with the struct edited in which a path ends."""
    if len(path) == 1:
        return edit(schema)

    def inside(parent: Field) -> Field:
        if not isinstance(parent.type, Struct):
            raise SchemaMismatchError(f"{'.'.join(path)!r} is no field of a struct: {'.'.join(path[:-1])} is none")
        return replace(parent, type=edit(parent.type))

    return _edited(schema, path[:-1], inside)


def _has(schema: Struct, path: Path) -> bool:
    type_: DataType = schema
    for part in path:
        f = type_.get(part) if isinstance(type_, Struct) else None
        if f is None:
            return False
        type_ = f.type
    return True


def _added(schema: Struct, path: Path, f: Field, place: str | None, name: str) -> Struct:
    def add(struct: Struct) -> Struct:
        if struct.get(f.name) is not None:
            raise SchemaMismatchError(f"column {name!r} exists already")
        at = len(struct.fields) if place is None else 0
        if place not in (None, "FIRST"):
            names = [g.name.lower() for g in struct]
            if str(place).lower() not in names:
                raise SchemaMismatchError(
                    f"column {name!r} cannot follow {place!r}, which is not there: {', '.join(struct.names)}"
                )
            at = names.index(str(place).lower()) + 1
        return Struct((*struct.fields[:at], f, *struct.fields[at:]))

    if not path:
        return add(schema)

    def inside(parent: Field) -> Field:
        if not isinstance(parent.type, Struct):
            raise SchemaMismatchError(f"column {name!r} cannot be added: {'.'.join(path)} is no struct")
        return replace(parent, type=add(parent.type))

    return _edited(schema, path, inside)


def _edited(schema: Struct, path: Path, edit: Callable[[Field], Field]) -> Struct:
    """The schema with one field, found by its path, edited."""
    f = schema.get(path[0])
    if f is None:
        raise SchemaMismatchError(f"there is no column {path[0]!r}: it is one of {', '.join(schema.names)}")
    new = edit(f) if len(path) == 1 else replace(f, type=_edited_inside(f.type, path[1:], edit, path[0]))
    return Struct(tuple(new if g is f else g for g in schema))


def _edited_inside(type_: DataType, path: Path, edit: Callable[[Field], Field], name: str) -> DataType:
    """The same inside a column: struct fields by name, members of arrays as element, of maps as key and value."""
    match type_, path[0].lower():
        case Struct(), _:
            return _edited(type_, path, edit)
        case Array(element, contains_null), "element":
            f = Field("element", element, contains_null)
            new = edit(f) if len(path) == 1 else replace(f, type=_edited_inside(element, path[1:], edit, f"{name}.element"))
            return Array(new.type, new.nullable)
        case Map(key, value, contains_null), "value":
            f = Field("value", value, contains_null)
            new = edit(f) if len(path) == 1 else replace(f, type=_edited_inside(value, path[1:], edit, f"{name}.value"))
            return Map(key, new.type, new.nullable)
    raise SchemaMismatchError(f"column {name!r} has no {path[0]!r} in it")
