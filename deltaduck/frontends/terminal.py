"""Tables, headings and errors in a terminal. Needs rich."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from deltaduck.listing import text

_NUMBER = re.compile(r"-?\d[\d,.]*( ([KMGT]i)?B)?")
PIPE_WIDTH = 400  # where nobody watches, nothing is cut to a screen


def console(*, stderr: bool = False) -> Console:
    """The terminal as it is now; wide when the output goes to a file or a pipe."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else PIPE_WIDTH, highlight=False)


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Table:
    """Rows under a line of names; numbers stand right."""
    rows = list(rows)
    out = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold cyan", show_edge=False)
    for i, name in enumerate(columns):
        numeric = any(row[i] is not None for row in rows) and all(_is_number(row[i]) for row in rows)
        out.add_column(Text(printable(name)), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        out.add_row(*(_cell(value) for value in row))
    return out


def plain(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """The same as lines of text, for many rows: names, and cells below them."""
    cells = [["NULL" if v is None else printable(text(v)).replace("\n", "\\n") for v in row] for row in (columns, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells)]
    return ["   ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in cells]


def progress(to: Console) -> Progress:
    """A bar that goes away when it is done; nothing at all where nobody watches."""
    parts = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*parts, console=to, transient=True, disable=not to.is_terminal)


def stages(bar: Progress) -> Callable[[str, int, int], None]:
    """A callback that shows each stage of a long work as a line of the bar."""
    tasks: dict[str, TaskID] = {}

    def show(what: str, done: int, total: int) -> None:
        if what not in tasks:
            tasks[what] = bar.add_task(what)
        bar.update(tasks[what], completed=done, total=total)

    return show


def one_line(message: str) -> str:
    """A message without line breaks and without the marks under a statement's text."""
    lines = (line.strip() for line in message.splitlines())
    return printable(" ".join(line for line in lines if line.strip("^~ ")))


def printable(value: str) -> str:
    """The text, with what would steer a terminal written out."""
    return value if value.isprintable() else "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in value)


def _cell(value: Any) -> Text:
    return Text("NULL", style="dim") if value is None else Text(printable(text(value)))


def _is_number(value: Any) -> bool:
    if isinstance(value, str):
        return _NUMBER.fullmatch(value) is not None
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool)) or type(value).__name__ == "Decimal"
