"""Where a catalog is: paths, ``postgresql://`` URLs and ``deltasql://`` URIs.

deltasql://postgres/[user:password@host:port/]db[/schema[/table]]?sslmode=…    deltasql://sqlite/<path>?table=t
deltasql://duckdb/<path>?table=t    (a second / before an absolute path; ``:memory:`` is a path)
Parts are percent-decoded, and ``${NAME}`` stands for an environment variable.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from deltaduck.errors import UriError

DATABASES = ("duckdb", "postgres", "sqlite")
SQLITE_SUFFIXES = (".sqlite", ".sqlite3")
_VARIABLE = re.compile(r"\$\{(\w+)\}")
_PASSWORD = re.compile(r"(://[^/?#@:]*:|/[^/?#@:]*:)[^/?#@]*@|((?:password|sslpassword)=)[^&\s]*", re.IGNORECASE)


@dataclass(frozen=True)
class Target:
    """A catalog: its database, its place (a path, or a libpq URL), its schema, one table of it, connection options."""

    database: str
    place: str = field(repr=False)
    schema: str = "public"
    table: str | None = None
    options: Mapping[str, str] = field(default_factory=dict, repr=False)


def parse(text: str) -> Target:
    """Read a target. UriError says what is wrong, without secrets."""
    if text.startswith(("postgresql://", "postgres://")):
        return Target("postgres", expand(text))
    if text.startswith("deltasql://"):
        return _deltasql(text)
    if re.match(r"[a-z][a-z0-9+.-]+://", text, re.IGNORECASE):
        scheme = text.split("://", maxsplit=1)[0]
        raise UriError(
            f"{scheme}:// names no catalog; known: deltasql://{{{','.join(DATABASES)}}}/…, postgresql://…, or a file's path"
        )
    if not text:
        raise UriError("an empty text names no catalog: give a path such as lake.duckdb")
    return Target("sqlite" if text.endswith(SQLITE_SUFFIXES) else "duckdb", text)


def _deltasql(text: str) -> Target:
    parts = urlsplit(text)
    if parts.netloc not in DATABASES:
        raise UriError(f"{redact(text)}: {parts.netloc!r} is no database; known: {', '.join(DATABASES)}")
    options = {k: expand(v) for k, v in parse_qsl(parts.query, keep_blank_values=True)}
    table = options.pop("table", None)
    body = parts.path.removeprefix("/")
    if not body:
        raise UriError(
            f"{redact(text)}: a {'database' if parts.netloc == 'postgres' else 'path'} is missing behind {parts.netloc}/"
        )
    if parts.netloc != "postgres":
        if options:
            raise UriError(f"{redact(text)}: unknown options {', '.join(sorted(options))}; known: table")
        return Target(parts.netloc, expand(unquote(body)), table=table)
    return _postgres(text, body, table, options)


def _postgres(text: str, body: str, table: str | None, options: dict[str, str]) -> Target:
    server = ""
    if "@" in body:
        server, _, body = body.partition("/")
    names = [expand(unquote(p)) for p in body.split("/")]
    if not names[0] or len(names) > 3:
        raise UriError(f"{redact(text)}: expected [user:password@host:port/]database[/schema[/table]]")
    schema = names[1] if len(names) > 1 else "public"
    user, _, address = server.rpartition("@")
    secret = ":".join(quote(expand(unquote(p)), safe="") for p in user.split(":", 1))
    place = (
        f"postgresql://{secret}@{address}/{quote(names[0], safe='')}" if server else f"postgresql:///{quote(names[0], safe='')}"
    )
    return Target("postgres", place, schema, table or (names[2] if len(names) > 2 else None), options)


def expand(text: str) -> str:
    """`text` with every ``${NAME}`` replaced; UriError names a variable that is not set."""

    def value(match: re.Match[str]) -> str:
        if match[1] not in os.environ:
            raise UriError(f"the environment variable {match[1]} is not set, and a URI uses it")
        return os.environ[match[1]]

    return _VARIABLE.sub(value, text)


def redact(text: str) -> str:
    """`text` without its password."""
    return _PASSWORD.sub(lambda m: f"{m[1] or m[2]}***{'@' if m[1] else ''}", text)
