"""Where a catalog, or a table of it, is: paths, ``postgresql://`` URLs and ``deltasql://`` URIs.

deltasql://postgres/[user:password@host:port/]db[/schema[/table]]?sslmode=…    deltasql://sqlite/<path>?table=t
deltasql://duckdb/<path>?table=t    (a second / before an absolute path; ``:memory:`` is a path)
Parts are percent-decoded, and ``${NAME}`` stands for an environment variable.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote, unquote

from deltaduck.errors import UriError

DATABASES = ("duckdb", "postgres", "sqlite")
SQLITE_SUFFIXES = (".sqlite", ".sqlite3")
OWN_OPTIONS = ("mirror", "storage", "table")
MIRROR_MODES = ("sync", "async", "manual")
LIBPQ_OPTIONS = (
    "application_name", "channel_binding", "client_encoding", "connect_timeout", "dbname", "fallback_application_name",
    "gssdelegation", "gssencmode", "gsslib", "host", "hostaddr", "keepalives", "keepalives_count", "keepalives_idle",
    "keepalives_interval", "krbsrvname", "load_balance_hosts", "options", "passfile", "password", "port", "require_auth",
    "requirepeer", "service", "ssl_max_protocol_version", "ssl_min_protocol_version", "sslcert", "sslcertmode",
    "sslcompression", "sslcrl", "sslcrldir", "sslkey", "sslmode", "sslnegotiation", "sslpassword", "sslrootcert", "sslsni",
    "target_session_attrs", "tcp_user_timeout", "user",
)  # fmt: skip
POSTGRES_OPTIONS = (*LIBPQ_OPTIONS, "pool_size", "schema", *OWN_OPTIONS)
_VARIABLE = re.compile(r"\$\{(\w+)\}")
_PASSWORD = re.compile(r"(/[^/?#@:]*:).*@|((?:password|sslpassword)=)[^&\s]*", re.IGNORECASE)


@dataclass(frozen=True)
class Target:
    """A catalog: its database, its place (a path, or a libpq URL), its schema, one table of it, connection options.

    storage: where data files of a new catalog go. mirror: when its commits are published.
    """

    database: str
    place: str = field(repr=False)
    schema: str = "public"
    table: str | None = None
    options: Mapping[str, str] = field(default_factory=dict, repr=False)
    storage: str | None = None
    mirror: str | None = None


def parse(text: str) -> Target:
    """Read a target. UriError says what is wrong, without secrets."""
    scheme, separator, rest = text.partition("://")
    if not separator or not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]+", scheme):
        if not text:
            raise UriError("an empty text names no catalog: give a path such as lake.duckdb")
        return Target("sqlite" if text.endswith(SQLITE_SUFFIXES) else "duckdb", text)
    match scheme.lower():
        case "postgresql" | "postgres":
            return _libpq_url(text, rest)
        case "deltasql":
            return _deltasql(text, rest)
    raise UriError(
        f"{scheme}:// names no catalog; known: deltasql://{{{','.join(DATABASES)}}}/…, postgresql://…, or a file's path"
    )


def is_uri(text: str) -> bool:
    """Does the text name a catalog by a URI, rather than by a path?"""
    return text.lower().startswith(("deltasql://", "postgresql://", "postgres://"))


def uri(
    kind: str,
    path: str | os.PathLike[str] | None = None,
    *,
    table: str | None = None,
    database: str | None = None,
    schema: str | None = None,
    host: str | None = None,
    port: int | str | None = None,
    user: str | None = None,
    password: str | None = None,
    **options: str | int | os.PathLike[str] | None,
) -> str:
    """A ``deltasql://`` URI of its parts, percent-encoded where they need it.

    ``uri("duckdb", "/data/lake.duckdb", table="orders")``, ``uri("sqlite", "lake.sqlite")``,
    ``uri("postgres", database="lakes", schema="sales", table="orders", user="ada", password=getpass(), host="db", port=5432,
    sslmode="require")``. The result holds the password as it is: to keep it out of scripts, write ``${NAME}`` into a URI
    of your own. UriError names what is missing, or unknown.
    """
    given = {k: os.fspath(v) if isinstance(v, os.PathLike) else str(v) for k, v in options.items() if v is not None}
    server = {"host": host, "port": port, "user": user, "password": password}
    if kind not in DATABASES:
        raise UriError(f"{kind!r} is no database; known: {', '.join(DATABASES)}")
    if kind == "postgres":
        if path is not None or not database:
            raise UriError("a postgres URI has no path, but needs the database's name: database=…")
        if user is None or (host or "").startswith("/"):  # a socket's directory is no part of an address
            given |= {k: str(v) for k, v in server.items() if v is not None}
            body = ""
        else:
            secret = ":".join(quote(part, safe="") for part in (user, password) if part is not None)
            body = f"{secret}@{quote(host or '', safe='[]:,')}{'' if port is None else f':{port}'}/"
        body += "/".join(quote(name, safe="") for name in ([database] if schema is None else [database, schema]))
    else:
        if path is None or not os.fspath(path):
            raise UriError(f"a {kind} URI needs the path of the catalog's file, or ':memory:'")
        given |= {k: str(v) for k, v in (server | {"database": database, "schema": schema}).items() if v is not None}
        body = quote(os.fspath(path), safe="/:~")
    _check_options(kind, given)
    if table is not None:
        given["table"] = table
    query = "&".join(f"{k}={quote(v, safe='/')}" for k, v in given.items())
    return f"deltasql://{kind}/{body}" + (f"?{query}" if query else "")


def _libpq_url(text: str, rest: str) -> Target:
    """libpq reads the URL itself; schema, table, storage and pool_size are ours."""
    body, options = _split(text, rest)
    _check_options("postgres", options, text)
    own = {k: options.pop(k, None) for k in ("schema", *OWN_OPTIONS)}
    address = _VARIABLE.sub(lambda m: quote(_value(m[1]), safe=":"), body)
    return Target(
        "postgres", f"postgresql://{address}", own["schema"] or "public", own["table"], options, own["storage"], own["mirror"]
    )


def _deltasql(text: str, rest: str) -> Target:
    whole, options = _split(text, rest)
    database, _, body = whole.partition("/")
    database = database.lower()
    if database not in DATABASES:
        raise UriError(f"{redact(text)}: {database!r} is no database; known: {', '.join(DATABASES)}")
    if not body:
        missing = "database" if database == "postgres" else "path"
        raise UriError(f"{redact(text)}: a {missing} is missing behind {database}/")
    _check_options(database, options, text)
    if database == "postgres":
        return _postgres(text, body, options)
    return Target(
        database, _decode(body), table=options.get("table"), storage=options.get("storage"), mirror=options.get("mirror")
    )


def _postgres(text: str, body: str, options: dict[str, str]) -> Target:
    first, _, behind = body.partition("/")
    server, body = (first, behind) if "@" in first else ("", body)
    names = [_decode(part) for part in body.split("/")]
    if not all(names) or len(names) > 3:
        raise UriError(f"{redact(text)}: expected [user:password@host:port/]database[/schema[/table]], none of them empty")
    own = {k: options.pop(k, None) for k in ("schema", *OWN_OPTIONS)}
    for position, part in ((1, "schema"), (2, "table")):
        if len(names) > position and own[part] not in (None, names[position]):
            raise UriError(f"{redact(text)}: it names two {part}s, in the path and as ?{part}=…: leave one out")
    user, _, address = server.rpartition("@")
    secret = ":".join(quote(_decode(part), safe="") for part in user.split(":", 1))
    where = quote(_decode(address), safe="[]:,")
    place = f"postgresql://{f'{secret}@' if secret else ''}{where}/{quote(names[0], safe='')}"
    return Target(
        "postgres", place, own["schema"] or (names[1] if len(names) > 1 else "public"),
        own["table"] or (names[2] if len(names) > 2 else None), options, own["storage"], own["mirror"],
    )  # fmt: skip


def _split(text: str, rest: str) -> tuple[str, dict[str, str]]:
    """(what stands before the ?, the options behind it, decoded)."""
    body, _, query = rest.partition("?")
    options: dict[str, str] = {}
    for pair in filter(None, query.split("&")):
        name, equals, value = pair.partition("=")
        if not equals or not value or name in options:
            shown = name if name.isidentifier() else "***"  # it may be a part of a password that was not encoded
            raise UriError(f"{redact(text)}: option {shown} {'is given twice' if name in options else 'has no value'}")
        options[name] = _decode(value)
    return body, options


def _check_options(database: str, options: Mapping[str, str], text: str | None = None) -> None:
    allowed: Sequence[str] = POSTGRES_OPTIONS if database == "postgres" else OWN_OPTIONS
    where = f"{redact(text)}: " if text else ""
    if unknown := sorted(name if name.isidentifier() else "***" for name in set(options) - set(allowed)):
        raise UriError(f"{where}unknown options {', '.join(unknown)}; {database} takes {', '.join(sorted(allowed))}")
    mirror_mode(options.get("mirror", "sync"), where)
    size = options.get("pool_size", "1")
    if not size.isascii() or not size.isdigit() or int(size) < 1:
        raise UriError(f"{where}pool_size is {size!r}: it is a whole number of connections, 1 or more")


def mirror_mode(mode: str, where: str = "") -> str:
    """When commits are published. UriError for a word that says nothing of that."""
    if mode not in MIRROR_MODES:
        raise UriError(f"{where}mirror is {mode!r}: it is {', '.join(MIRROR_MODES[:-1])} or {MIRROR_MODES[-1]}")
    return mode


def _decode(text: str) -> str:
    """`text` percent-decoded, with every ``${NAME}`` replaced as it is."""
    pieces = _VARIABLE.split(text)
    return "".join(_value(piece) if i % 2 else unquote(piece) for i, piece in enumerate(pieces))


def _value(name: str) -> str:
    """An environment variable; UriError names one that is not set."""
    if name not in os.environ:
        raise UriError(f"the environment variable {name} is not set, and a URI uses it")
    return os.environ[name]


def redact(text: str) -> str:
    """`text` without its password."""
    return _PASSWORD.sub(lambda m: f"{m[1] or m[2]}***{'@' if m[1] else ''}", text)
