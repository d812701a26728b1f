"""Per-file statistics: the log's JSON, and the typed columns of the skip index. SQL text for the engine.

Protocol: https://github.com/delta-io/delta/blob/master/PROTOCOL.md#per-file-statistics
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from deltaduck.protocol.partitions import deserialize
from deltaduck.protocol.schema import DataType, Struct, decimal_of, leaves, literal, quote, to_duckdb

MAX_STRING = 32  # characters of a string that min and max keep
_NUMBERS = ("byte", "short", "integer", "long", "float", "double")


@dataclass(frozen=True)
class SkipColumn:
    """One indexed leaf column of a table. `ordinal` names its columns in ``dl_skip_<table_id>``."""

    ordinal: int
    path: tuple[str, ...]
    type: str
    is_partition: bool

    @property
    def min(self) -> str:
        return f"c{self.ordinal}_min"

    @property
    def max(self) -> str:
        return f"c{self.ordinal}_max"

    @property
    def nulls(self) -> str:
        return f"c{self.ordinal}_nulls"

    @property
    def value(self) -> str:
        """The exact value, of a partition column."""
        return f"c{self.ordinal}_value"

    def definitions(self) -> list[tuple[str, str]]:
        """(name, portable SQL type) of the columns that hold it."""
        kind = index_type(self.type)
        if self.is_partition:
            return [(self.value, kind)]
        return [(self.min, kind), (self.max, kind), (self.nulls, "BIGINT")]


def has_bounds(type_: DataType) -> bool:
    """Do statistics carry min and max for this type?"""
    return isinstance(type_, str) and (
        type_ in _NUMBERS or type_ in ("string", "date", "timestamp", "timestamp_ntz") or decimal_of(type_) is not None
    )


def index_type(type_: str) -> str:
    """How a type is held in the skip index: days and microseconds as whole numbers, decimals as doubles."""
    if type_ in ("float", "double") or decimal_of(type_):
        return "DOUBLE PRECISION"
    return "TEXT" if type_ in ("string", "binary") else "BIGINT"


def indexed_leaves(
    schema: Struct, partition_columns: Sequence[str], configuration: Mapping[str, str]
) -> list[tuple[tuple[str, ...], DataType]]:
    """The leaf columns that statistics cover: the named ones, else the first N (32 unless told; -1 is all)."""
    data = leaves(schema.without(partition_columns))
    if named := configuration.get("delta.dataSkippingStatsColumns"):
        wanted = [tuple(part.strip().strip("`").split(".")) for part in named.split(",")]
        return [(path, t) for path, t in data if any(path[: len(w)] == w for w in wanted)]
    count = int(configuration.get("delta.dataSkippingNumIndexedCols", "32"))
    return list(data if count < 0 else islice(data, count))


def skip_columns(
    schema: Struct, partition_columns: Sequence[str], configuration: Mapping[str, str]
) -> list[tuple[tuple[str, ...], str, bool]]:
    """(physical path, type, is_partition) of every column the skip index should hold."""
    parts = [schema.get(name) for name in partition_columns]
    exact = [((f.physical_name,), f.type, True) for f in parts if f is not None and isinstance(f.type, str)]
    bounded = [
        (path, t, False) for path, t in indexed_leaves(schema, partition_columns, configuration)
        if isinstance(t, str) and has_bounds(t)
    ]  # fmt: skip
    return exact + bounded


# --- what COPY ... RETURN_STATS says of a written file, as the log's JSON


def stats_json(columns: Sequence[tuple[tuple[str, ...], DataType]]) -> str:
    """SQL: the ``stats`` JSON text, over the columns `count` and `column_statistics` of RETURN_STATS."""
    bounded = [(path, t) for path, t in columns if has_bounds(t)]
    counted = [(path, t) for path, t in columns if isinstance(t, str)]
    members = [
        ("minValues", _object([(path, _bound(path, str(t), "min")) for path, t in bounded])),
        ("maxValues", _object([(path, _bound(path, str(t), "max")) for path, t in bounded])),
        ("nullCount", _object([(path, _stat(path, "null_count")) for path, _ in counted])),
    ]
    parts = "".join(f" || ',\"{name}\":' || {sql}" for name, sql in members)
    return f"'{{\"numRecords\":' || count{parts} || '}}'"


def _object(entries: Sequence[tuple[tuple[str, ...], str]]) -> str:
    """SQL: a JSON object of nested paths, without the members whose SQL is NULL."""
    groups: dict[str, list[tuple[tuple[str, ...], str]]] = {}
    for path, sql in entries:
        groups.setdefault(path[0], []).append((path[1:], sql))
    if not groups:
        return "'{}'"
    members = []
    for name, inner in groups.items():
        value = inner[0][1] if inner[0][0] == () else _object(inner)
        members.append(f"{literal(json.dumps(name, ensure_ascii=False) + ':')} || ({value})")
    return f"'{{' || concat_ws(',', {', '.join(members)}) || '}}'"


def _stat(path: tuple[str, ...], stat: str) -> str:
    return f"column_statistics[{literal('.'.join(quote(p) for p in path))}]['{stat}']"


def _bound(path: tuple[str, ...], type_: str, stat: str) -> str:
    """SQL: the JSON text of a min or max, NULL where none is known that JSON can hold."""
    value = _stat(path, stat)
    match type_:
        case "string":
            if stat == "min":
                return f"CAST(to_json(left({value}, {MAX_STRING})) AS VARCHAR)"
            # a cut maximum is raised above all that it stands for by U+10FFFF, unless that is what was cut
            return (
                f"CASE WHEN length({value}) <= {MAX_STRING} THEN CAST(to_json({value}) AS VARCHAR) "
                f"WHEN {value}[{MAX_STRING + 1}] <> chr(1114111) "
                f"THEN CAST(to_json(left({value}, {MAX_STRING}) || chr(1114111)) AS VARCHAR) END"
            )
        case "date":
            return f"CASE WHEN regexp_full_match({value}, '[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}') THEN '\"' || {value} || '\"' END"
        case "timestamp" | "timestamp_ntz":
            micros = f"TRY(epoch_us(CAST({value} AS {to_duckdb(type_)})))"
            # milliseconds, outwards: down for a minimum, up for a maximum; years 1 to 9999
            shift = (
                f"{micros} - ({micros} % 1000 + 1000) % 1000" if stat == "min" else f"{micros} + (1000 - {micros} % 1000) % 1000"
            )
            zone = "Z" if type_ == "timestamp" else ""
            return (
                f"CASE WHEN {micros} BETWEEN -62135596800000000 AND 253402300799000000 "
                f"THEN '\"' || strftime(make_timestamp({shift}), '%Y-%m-%dT%H:%M:%S.%g{zone}') || '\"' END"
            )
        case "float" | "double":
            # NaN is above every number in DuckDB, so a file that holds one has no maximum
            finite = f"CASE WHEN {value} NOT IN ('inf', '-inf', 'nan') THEN {value} END"
            return finite if stat == "min" else f"CASE WHEN {_stat(path, 'has_nan')} = 'false' THEN {finite} END"
    return value


# --- the skip index, derived from the log's JSON


def skip_row(columns: Sequence[SkipColumn]) -> str:
    """SQL: the select list of the skip index's columns, over `s` (stats as struct) and `p` (partition values as struct)."""
    return ", ".join(f"{sql} AS {name}" for c in columns for name, sql in _index_values(c)) or "NULL"


def _index_values(c: SkipColumn) -> list[tuple[str, str]]:
    if c.is_partition:
        value = deserialize(f"p.{quote(c.path[0])}", c.type)
        return [(c.value, f"TRY({_index_value(value, c.type)})")]
    path = ".".join(quote(p) for p in c.path)
    low, high = f's."minValues".{path}', f's."maxValues".{path}'
    if c.type in ("timestamp", "timestamp_ntz"):  # a maximum is cut to milliseconds
        return [
            (c.min, f"TRY(epoch_us(CAST({low} AS TIMESTAMP)))"),
            (c.max, f"TRY(epoch_us(CAST({high} AS TIMESTAMP)) + 999)"),
            (c.nulls, f's."nullCount".{path}'),
        ]
    upper = _index_value(high, c.type)
    if c.type in ("float", "double"):  # only our own files are known to have no NaN above their maximum
        upper = f"CASE WHEN exact_max THEN {upper} END"
    return [(c.min, _index_value(low, c.type)), (c.max, upper), (c.nulls, f's."nullCount".{path}')]


def _index_value(value: str, type_: str) -> str:
    match type_:
        case "string":
            return value
        case "date":
            return f"datediff('day', DATE '1970-01-01', CAST({value} AS DATE))"
        case "timestamp" | "timestamp_ntz":
            return f"epoch_us({value})"
        case "binary":
            return f"hex({value})"
        case "float":
            return f"CAST(CAST({value} AS FLOAT) AS DOUBLE)"
    return f"CAST({value} AS {'DOUBLE' if index_type(type_) == 'DOUBLE PRECISION' else 'BIGINT'})"


def stats_structure(columns: Sequence[SkipColumn]) -> str:
    """The JSON structure by which ``from_json`` reads stats into `s`."""
    bounds = _tree([(c.path, _json_type(c.type)) for c in columns if not c.is_partition])
    nulls = _tree([(c.path, "BIGINT") for c in columns if not c.is_partition])
    shape: dict[str, object] = {"numRecords": "BIGINT"}
    if bounds:
        shape |= {"minValues": bounds, "maxValues": bounds, "nullCount": nulls}
    return json.dumps(shape, ensure_ascii=False)


def partition_structure(columns: Sequence[SkipColumn]) -> str:
    """The JSON structure by which ``from_json`` reads partition values into `p`."""
    return json.dumps({c.path[0]: "VARCHAR" for c in columns if c.is_partition} or {"_": "VARCHAR"}, ensure_ascii=False)


def _json_type(type_: str) -> str:
    if type_ in ("string", "timestamp", "timestamp_ntz"):
        return "VARCHAR"
    if decimal_of(type_):
        return "DOUBLE"
    return to_duckdb(type_)


def _tree(entries: Sequence[tuple[tuple[str, ...], str]]) -> dict[str, object]:
    root: dict[str, object] = {}
    for path, leaf in entries:
        node = root
        for part in path[:-1]:
            node = node.setdefault(part, {})  # type: ignore[assignment]
        node[path[-1]] = leaf
    return root
