"""Rows of a driver that knows nothing of Arrow, as Arrow: types come from the catalog's own column definitions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import cache
from typing import Any

import pyarrow as pa

from deltaduck import statements

_TYPES = {"BIGINT": pa.int64(), "TEXT": pa.string(), "BOOLEAN": pa.bool_()}
_COLUMN = re.compile(r"(?:^    |ADD COLUMN )(\w+)\s+(BIGINT|TEXT|BOOLEAN)\b", re.MULTILINE)


@cache
def column_types() -> dict[str, pa.DataType]:
    """Arrow type of every catalog column by name: a name has one type, in whichever table it stands."""
    return {name: _TYPES[kind] for _, script in statements.migrations() for name, kind in _COLUMN.findall(script)}


def to_arrow(names: Sequence[str], rows: Sequence[Sequence[Any]], types: Mapping[str, pa.DataType] | None = None) -> pa.Table:
    """An Arrow table of rows; the types of a catalog's columns are known."""
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(names)
    known = column_types() if types is None else types
    return pa.table({n: _array(c, known.get(n)) for n, c in zip(names, columns, strict=True)})


def _array(values: Sequence[Any], kind: pa.DataType | None) -> pa.Array:
    if kind is None:  # a computed column: sums are decimals in PostgreSQL
        plain = [int(v) if isinstance(v, Decimal) else v for v in values]
        return pa.array(plain) if any(v is not None for v in plain) else pa.array(plain, pa.int64())
    if pa.types.is_boolean(kind):  # SQLite's booleans are numbers
        return pa.array([None if v is None else bool(v) for v in values], kind)
    return pa.array(values, kind)
