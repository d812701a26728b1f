"""Per-file statistics: the log's JSON, and the typed columns of the skip index. SQL text for the engine.

Protocol: https://github.com/delta-io/delta/blob/master/PROTOCOL.md#per-file-statistics
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from deltaduck.protocol.partitions import deserialize
from deltaduck.protocol.schema import DataType, Struct, decimal_of, leaves, logical_leaves, quote, to_duckdb

STATS_COLUMNS = "delta.dataSkippingStatsColumns"
MAX_STRING = 32  # characters of a string that min and max keep
HIGHEST = "\U0010ffff"
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
    rest = schema.without(partition_columns)
    data = leaves(rest)
    if named := configuration.get(STATS_COLUMNS):
        wanted = [tuple(part.strip().strip("`").split(".")) for part in named.split(",")]
        names = dict(logical_leaves(rest))
        return [(path, t) for path, t in data if any(names[path][: len(w)] == w for w in wanted)]
    number = configuration.get("delta.dataSkippingNumIndexedCols", "32")
    count = int(number) if re.fullmatch(r"-?\d{1,9}", number) else 32
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


def recorded(rows: Iterable[tuple[Any, ...]]) -> list[SkipColumn]:
    """What ``dl_skip_columns`` says, by ordinal."""
    return [SkipColumn(ordinal, tuple(json.loads(path)), kind, bool(part)) for ordinal, path, kind, part in sorted(rows)]


def carried(old: SkipColumn, new: SkipColumn) -> list[tuple[str, str]]:
    """(column, portable SQL) of the index of a column whose type was widened, from what the index had of it before."""
    found = []
    for (name, _), (source, _) in zip(new.definitions(), old.definitions(), strict=True):
        if (old.type, new.type) == ("date", "timestamp_ntz") and source != old.nulls:  # days are microseconds now
            end = 999 if name == new.max else 0  # as derived: statistics cut a maximum to milliseconds
            source = f"CASE WHEN {source} BETWEEN -100000000 AND 100000000 THEN {source} * 86400000000 + {end} END"
        found.append((name, source))
    return found


# --- what COPY ... RETURN_STATS says of a written file, as the log's JSON and as the skip index's values


def file_stats(
    count: int, statistics: Mapping[str, Mapping[str, str]], columns: Sequence[tuple[tuple[str, ...], DataType]]
) -> tuple[str, dict[tuple[str, ...], tuple[Any, Any, int]]]:
    """(the ``stats`` JSON, the skip index's (min, max, null count) by path) of one file.

    statistics: DuckDB's, by quoted dotted path; columns: the leaves that statistics cover.
    """
    lows: dict[str, Any] = {}
    highs: dict[str, Any] = {}
    nulls: dict[str, Any] = {}
    index = {}
    for path, type_ in columns:
        said = statistics.get(".".join(quote(p) for p in path), {})
        if not isinstance(type_, str) or "null_count" not in said:
            continue
        _put(nulls, path, said["null_count"])
        low = high = _UNKNOWN
        if has_bounds(type_):
            low = _bound(type_, said.get("min"), upper=False)
            # NaN is above every number in DuckDB, so a file that may hold one has no maximum
            unbounded = type_ in ("float", "double") and said.get("has_nan") != "false"
            high = _UNKNOWN if unbounded else _bound(type_, said.get("max"), upper=True)
            _put(lows, path, low[0])
            _put(highs, path, high[0])
        index[path] = (low[1], high[1], int(said["null_count"]))
    text = f'{{"numRecords":{count},"minValues":{_object(lows)},"maxValues":{_object(highs)},"nullCount":{_object(nulls)}}}'
    return text, index


def _put(tree: dict[str, Any], path: tuple[str, ...], text: str | None) -> None:
    if text is not None:
        for part in path[:-1]:
            tree = tree.setdefault(part, {})
        tree[path[-1]] = text


def _object(tree: Mapping[str, Any]) -> str:
    """JSON of nested dicts whose leaves are JSON already: decimals keep every digit."""
    members = (f"{json_string(k)}:{v if isinstance(v, str) else _object(v)}" for k, v in tree.items())
    return "{" + ",".join(members) + "}"


def json_string(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


_Bound = tuple[str | None, Any]  # JSON text, value in the skip index; None where no bound is known that JSON can hold
_UNKNOWN: _Bound = (None, None)
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def _bound(type_: str, text: str | None, *, upper: bool) -> _Bound:
    """A minimum or maximum that DuckDB wrote as text: no tighter than the values are."""
    if text is None:
        return _UNKNOWN
    if type_ == "string":
        return _string_bound(text, upper=upper)
    if type_ == "date":
        day = _parsed(dt.date.fromisoformat, text)
        return _UNKNOWN if day is None else (json_string(text), (day - _EPOCH.date()).days)
    if type_ in ("timestamp", "timestamp_ntz"):
        return _timestamp_bound(type_, text, upper=upper)
    if type_ in ("float", "double"):
        if text in ("inf", "-inf", "nan"):
            return _UNKNOWN
        return text, float(np.float32(text)) if type_ == "float" else float(text)
    if decimal_of(type_):  # DuckDB leaves out a zero before the point where the type has no digits there
        return text.replace(".", "0.", 1) if text.lstrip("-").startswith(".") else text, float(text)
    return text, int(text)


def _string_bound(text: str, *, upper: bool) -> _Bound:
    if len(text) > MAX_STRING:
        rest, text = text[MAX_STRING:], text[:MAX_STRING]
        if upper:  # raised above all that it stands for, unless what was cut is that high itself
            if rest.startswith(HIGHEST):
                return _UNKNOWN
            text += HIGHEST
    return json_string(text), text


def _timestamp_bound(type_: str, text: str, *, upper: bool) -> _Bound:
    """In milliseconds, outwards: down for a minimum, up for a maximum."""
    moment = _parsed(dt.datetime.fromisoformat, text)
    if moment is None:
        return _UNKNOWN
    micros = (moment.replace(tzinfo=moment.tzinfo or dt.UTC) - _EPOCH) // dt.timedelta(microseconds=1)
    millis = -(-micros // 1000) if upper else micros // 1000
    try:
        shown = (_EPOCH + dt.timedelta(milliseconds=millis)).replace(tzinfo=None).isoformat(timespec="milliseconds")
    except OverflowError:
        return _UNKNOWN
    return json_string(shown + ("Z" if type_ == "timestamp" else "")), millis * 1000 + (999 if upper else 0)


def _parsed(parse: Callable[[str], Any], text: str) -> Any:
    """What `text` says; None for years that the log's format has no way to write."""
    try:
        return parse(text)
    except ValueError:
        return None


def partition_index_value(text: str | None, type_: str) -> Any:
    """The skip index's value of a partition column, from the log's string."""
    if text is None:
        return None
    match type_:
        case "string":
            return text
        case "binary":
            return text.encode().hex().upper()
        case "boolean":
            return int(text == "true")
        case "date" | "timestamp" | "timestamp_ntz":
            parsed = _parsed(dt.datetime.fromisoformat, text)
            if parsed is None:
                return None
            delta = parsed.replace(tzinfo=parsed.tzinfo or dt.UTC) - _EPOCH
            return delta.days if type_ == "date" else delta // dt.timedelta(microseconds=1)
        case "float":
            return float(np.float32(text))
        case "double":
            return float(text)
    return float(text) if decimal_of(type_) else int(text)


# --- the skip index, derived from the log's JSON


def skip_row(columns: Sequence[SkipColumn], floats: Collection[tuple[str, ...]] = ()) -> list[str]:
    """SQL: the select items of the skip index's columns, over `s` (stats as struct) and `p` (partition values as struct).

    floats: the columns whose files may hold floats though they are doubles now."""
    return [f"{sql} AS {name}" for c in columns for name, sql in _index_values(c, c.path in floats)]


def _index_values(c: SkipColumn, was_float: bool) -> list[tuple[str, str]]:
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
    if c.type == "string":  # nor to have a long maximum that was not merely cut
        upper = f"CASE WHEN exact_max OR length({upper}) < {MAX_STRING} THEN {upper} ELSE {upper} || chr({ord(HIGHEST)}) END"
    lower = _index_value(low, c.type)
    if was_float:  # 0.1 is a double below, and 0.7 one above, the float that is written so
        lower, upper = (
            f"{end}({v}, CAST(TRY_CAST({v} AS FLOAT) AS DOUBLE))" for end, v in (("least", lower), ("greatest", upper))
        )
    return [(c.min, lower), (c.max, upper), (c.nulls, f's."nullCount".{path}')]


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
