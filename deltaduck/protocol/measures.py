"""Statistics of files that are there already, in SQL: the log's JSON from what was measured of each, for any number of files.

It says what `stats.file_stats` says of a file that is just written: a property test compares the two.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from deltaduck.protocol.schema import DataType, literal, number_text
from deltaduck.protocol.stats import HIGHEST, MAX_STRING, has_bounds, json_string


class Measure(NamedTuple):
    """SQL of what is known of a leaf column in a file; NULL is unknown, and so is a column that was not measured.

    low and high are of the column's own type, has_nan of floats only."""

    path: tuple[str, ...]
    type: DataType
    nulls: str
    low: str = "NULL"
    high: str = "NULL"
    has_nan: str = "NULL"


def stats_sql(count: str, measures: Sequence[Measure], is_loose: str = "false") -> str:
    """SQL: the ``stats`` of a file with so many rows. is_loose: may rows be hidden that have the least or the greatest value?"""
    bounded = [m for m in measures if has_bounds(m.type)]
    members = {
        "minValues": _object((m.path, _bound(m, m.low, upper=False)) for m in bounded),
        "maxValues": _object((m.path, _bound(m, m.high, upper=True)) for m in bounded),
        "nullCount": _object((m.path, f"CAST({m.nulls} AS VARCHAR)") for m in measures if isinstance(m.type, str)),
    }
    first = f"""CASE WHEN {is_loose} THEN '{{"tightBounds":false,"numRecords":' ELSE '{{"numRecords":' END"""
    parts = [first, count, *(part for name, sql in members.items() for part in (literal(f',"{name}":'), sql))]
    return f"concat({', '.join([*parts, literal('}')])})"


def _object(leaves: Iterable[tuple[tuple[str, ...], str]]) -> str:
    """SQL: a JSON object of the leaves that are not NULL."""
    root: dict[str, Any] = {}
    for path, sql in leaves:
        node = root
        for part in path[:-1]:
            node = node.setdefault(part, {})
        node[path[-1]] = sql
    return f"concat('{{', {_members(root)}, '}}')"


def _members(tree: dict[str, Any]) -> str:
    if not tree:
        return "''"
    items = []
    for name, value in tree.items():
        key = literal(f"{json_string(name)}:")
        if isinstance(value, dict):
            items.append(f"{key} || '{{' || nullif({_members(value)}, '') || '}}'")
        else:
            items.append(f"{key} || {value}")
    return f"concat_ws(',', {', '.join(items)})"


def _bound(m: Measure, value: str, *, upper: bool) -> str:
    """SQL: a bound as JSON text, no tighter than the value; NULL where JSON can hold none."""
    if value == "NULL":
        return "CAST(NULL AS VARCHAR)"
    match m.type:
        case "string":
            return f"CAST(to_json({_string_bound(value) if upper else f'left({value}, {MAX_STRING})'}) AS VARCHAR)"
        case "date":
            text = f"'\"' || CAST({value} AS VARCHAR) || '\"'"
            return f"CASE WHEN {value} BETWEEN DATE '0001-01-01' AND DATE '9999-12-31' THEN {text} END"
        case "timestamp" | "timestamp_ntz":
            return _timestamp_bound(value, "Z" if m.type == "timestamp" else "", upper=upper)
        case "float" | "double":
            nan = f" AND {m.has_nan} IS FALSE" if upper else ""
            return f"CASE WHEN isfinite({value}){nan} THEN CAST({value} AS VARCHAR) END"
    return number_text(value, m.type)


def _string_bound(value: str) -> str:
    return (
        f"CASE WHEN length({value}) <= {MAX_STRING} THEN {value} "
        f"WHEN NOT starts_with(substr({value}, {MAX_STRING + 1}), chr({ord(HIGHEST)})) "
        f"THEN left({value}, {MAX_STRING}) || chr({ord(HIGHEST)}) END"
    )


FIRST_US, END_US = -62_135_596_800_000_000, 253_402_300_800_000_000  # the years that the log can write


def _timestamp_bound(value: str, zone: str, *, upper: bool) -> str:
    """In milliseconds, outwards."""
    micros = f"epoch_us({value})"
    below = f"{micros} - (({micros} % 1000) + 1000) % 1000"
    end = f"({below} + CASE WHEN {micros} % 1000 = 0 THEN 0 ELSE 1000 END)" if upper else f"({below})"
    return (
        f"CASE WHEN isfinite({value}) AND {micros} >= {FIRST_US} AND {end} < {END_US} "
        f"THEN strftime(make_timestamp({end}), '\"%Y-%m-%dT%H:%M:%S.%g{zone}\"') END"
    )
