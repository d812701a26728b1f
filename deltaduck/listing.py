"""Small tables for people: a list of dicts that prints as a table, in a terminal and in a notebook."""

from __future__ import annotations

import datetime as dt
import html
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa


class Listing(list[dict[str, Any]]):
    """Rows as dicts, in order. ``to_arrow``, ``to_polars`` and ``to_pandas`` hand them on."""

    def __init__(self, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        self.columns = list(columns)
        super().__init__(dict(zip(self.columns, row, strict=True)) for row in rows)

    def rows(self, columns: Sequence[str] | None = None) -> list[list[Any]]:
        """The cells of every row, of all columns or of some."""
        return [[row[c] for c in columns or self.columns] for row in self]

    def to_arrow(self) -> pa.Table:
        rows = self.rows()
        return pa.table({c: [row[i] for row in rows] for i, c in enumerate(self.columns)})

    def to_polars(self) -> Any:
        import polars

        return polars.from_arrow(self.to_arrow())

    def to_pandas(self) -> Any:
        return self.to_arrow().to_pandas()

    def __repr__(self) -> str:
        cells = [self.columns, *([text(cell) for cell in row] for row in self.rows())]
        widths = [max(len(row[i]) for row in cells) for i in range(len(self.columns))]
        lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in cells]
        return "\n".join([lines[0], "  ".join("─" * w for w in widths), *lines[1:]])

    def _repr_html_(self) -> str:
        head = "".join(f"<th style='text-align:left'>{html.escape(c)}</th>" for c in self.columns)
        body = "".join(
            "<tr>" + "".join(f"<td style='text-align:left'>{html.escape(text(cell))}</td>" for cell in row) + "</tr>"
            for row in self.rows()
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def text(value: Any) -> str:
    """One cell."""
    match value:
        case None:
            return ""
        case dt.datetime():
            return value.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
        case dict():
            return ", ".join(f"{k}={v}" for k, v in value.items())
    return str(value)


def size_text(count: float) -> str:
    """Bytes, the way people read them."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def utc(ms: int | None) -> dt.datetime | None:
    return None if ms is None else dt.datetime.fromtimestamp(ms / 1000, dt.UTC)
