"""The named SQL of ``sql/``: found, overridden per database, bound.

A statement is a ``-- name: its_name`` line, a comment that says what it does, and one SQL statement with
``:parameters``. ``sql/core`` is portable; a file in ``sql/<database>`` may replace statements by name.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache
from pathlib import Path

_HERE = Path(__file__).resolve().parent
ROOT = next(p for p in (_HERE / "sql", _HERE.parent / "sql") if p.is_dir())

KEPT = 1024  # statements: some name what they are about in their text
_NAME = re.compile(r"^-- name: (\w+)\s*$", re.MULTILINE)
_PARAMETER = re.compile(r"'(?:[^']|'')*'|--[^\n]*|::|:([a-z_]\w*)")


@cache
def load(database: str) -> dict[str, str]:
    """Every named statement for a database: core, with its overrides."""
    return {**read_directory(ROOT / "core"), **read_directory(ROOT / database)}


def read_directory(directory: Path) -> dict[str, str]:
    """name -> SQL of the statements in a directory's files; {} when there is none."""
    found: dict[str, str] = {}
    for file in sorted(directory.glob("*.sql")):
        parts = _NAME.split(file.read_text(encoding="utf-8"))[1:]
        for name, body in zip(parts[::2], parts[1::2], strict=True):
            if name in found:
                raise ValueError(f"statement {name!r} stands twice in {directory}")
            found[name] = body.strip().rstrip(";")
    return found


def migrations() -> list[tuple[int, str]]:
    """(schema version, script) of every migration, oldest first."""
    files = sorted((ROOT / "migrations").glob("*.sql"))
    return [(int(f.name.split("_")[0]), f.read_text(encoding="utf-8")) for f in files]


def views(database: str) -> dict[str, str]:
    """name -> CREATE VIEW of every shipped view; ``dl_log_lines`` is made of all the lines a commit can hold."""
    named = load(database)
    out = {name.removeprefix("view_"): sql for name, sql in named.items() if name.startswith("view_")}
    lines = [sql for name, sql in named.items() if name.startswith("line_")]
    return {**out, "dl_log_lines": "CREATE VIEW dl_log_lines AS\n" + "\nUNION ALL\n".join(lines)}


def functions(database: str) -> list[str]:
    """CREATE FUNCTION of what the database lacks."""
    return [sql for name, sql in load(database).items() if name.startswith("function_")]


def indexes(database: str) -> list[str]:
    """CREATE INDEX of what the database would otherwise search from end to end; DuckDB has no need of them."""
    return [] if database == "duckdb" else [sql for name, sql in load(database).items() if name.startswith("index_")]


def split(script: str) -> list[str]:
    """The statements of a script of ours: none holds a semicolon in a string."""
    lines = [re.sub(r"\s*--.*$", "", line) for line in script.splitlines()]
    return [s.strip() for s in "\n".join(lines).split(";") if s.strip()]


@lru_cache(KEPT)
def bind(sql: str, marker: str) -> str:
    """`sql` with each ``:name`` written as the driver wants it: marker is ``"$%s"``, ``":%s"`` or ``"%%(%s)s"``."""
    return _PARAMETER.sub(lambda m: marker % m[1] if m[1] else m[0], sql)


@lru_cache(KEPT)
def parameters(sql: str) -> frozenset[str]:
    """The names that `sql` binds."""
    return frozenset(m[1] for m in _PARAMETER.finditer(sql) if m[1])
