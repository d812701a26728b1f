"""How DuckDB reads and writes object stores: through httpfs where it can be loaded, else through obstore.

DuckDB takes a Python filesystem for URLs that begin with a word of its own. Each lake has such a word, so that its
credentials are its own on a connection that several lakes share. Writing always goes this way: a file is streamed to the
store in parts, without a local copy, and is there when its last part is.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import cache
from typing import Any

import duckdb

from deltaduck.errors import StorageError
from deltaduck.protocol.schema import literal, quote
from deltaduck.storage.remote import SCHEMES, Access, access_of, translated

MARK = "deltaduck storage: "  # before what a message of ours says, wherever DuckDB puts it
MISSING = "No files found: "
PART = 8 << 20  # bytes of an upload that are sent at once
PARTS_AT_ONCE = 4
KNOWN_FILES = 100_000
SETTINGS = {  # of S3, by their names in the environment
    "access_key_id": "ACCESS_KEY_ID", "secret_access_key": "SECRET_ACCESS_KEY",  # pragma: allowlist secret
    "session_token": "SESSION_TOKEN",
    "region": "REGION",
    "endpoint": "ENDPOINT_URL", "virtual_hosted_style_request": "VIRTUAL_HOSTED_STYLE_REQUEST",
}  # fmt: skip
ALIASES = {"session_token": "token", "region": "default_region"}


_binding: ContextVar[bool] = ContextVar("binding", default=False)


@contextlib.contextmanager
def while_binding() -> Iterator[None]:
    """Names made meanwhile are for a statement that is being bound: a secret created now would come too late for it."""
    token = _binding.set(True)
    try:
        yield
    finally:
        _binding.reset(token)


def readable(connection: Any, root: str, *, plain: bool = True) -> str:
    """See ``deltaduck.storage``."""
    if plain and not _binding.get() and root.startswith(("s3://", "s3a://")) and _has_secret(connection, root):
        return str(root)
    return attach(connection, root) + root


def attach(connection: Any, root: str) -> str:
    """Let this connection's DuckDB reach stores with the root's credentials; what goes before a URL then."""
    access = access_of(root)
    if access.prefix not in "".join(connection.list_filesystems()):
        with contextlib.suppress(duckdb.InvalidInputException):  # another thread was faster
            connection.register_filesystem(_filesystem()(access))
    return access.prefix


def complaint(text: str) -> str | None:
    """What the filesystem said in the text of a DuckDB error, if that is where it comes from."""
    return text.split(MARK, 1)[1].splitlines()[0] if MARK in text else None


# --- httpfs


def _has_secret(connection: Any, root: str) -> bool:
    """Does this connection read the root through httpfs, with the root's credentials?

    Only where they are a key and a secret: what expires, or has to be asked for, is obstore's.
    """
    access = access_of(root)
    if access.has_httpfs is False:
        return False
    bucket = "/".join(root.split("/")[:3])
    config = {name: value for name in SETTINGS if (value := _setting(access.store(bucket)[0].config, name))}
    name = f"{access.prefix}{bucket.partition('://')[2]}"
    try:
        connection.execute("LOAD httpfs")
        access.has_httpfs = True
        if not {"access_key_id", "secret_access_key"} <= config.keys():
            return False
        query = f"SELECT name FROM duckdb_secrets() WHERE list_contains(scope, {literal(bucket + '/')})"
        found = [row[0] for row in connection.execute(query).fetchall()]
        if not found:
            connection.execute(f"CREATE TEMPORARY SECRET {quote(name)} ({_secret(bucket, config)})")
        return found in ([], [name])  # a secret of somebody else for this bucket is not ours to use, nor to outdo
    except duckdb.Error:  # whose text may hold the statement
        access.has_httpfs = access.has_httpfs or False
        return False


def _setting(config: Mapping[str, Any], name: str) -> str | None:
    """An S3 option: the lake's, or the environment's."""
    found = config.get(name) or config.get(ALIASES.get(name, name)) or os.environ.get("AWS_" + SETTINGS[name])
    return None if found is None else str(found)


def _secret(bucket: str, config: Mapping[str, str]) -> str:
    endpoint = config.get("endpoint", "")
    virtual = config.get("virtual_hosted_style_request", "false").lower() == "true" or not endpoint
    items = {
        "SCOPE": bucket + "/", "KEY_ID": config["access_key_id"], "SECRET": config["secret_access_key"],
        "REGION": config.get("region", "us-east-1"), "SESSION_TOKEN": config.get("session_token"),
        "ENDPOINT": re.sub("^https?://", "", endpoint).rstrip("/") or None, "URL_STYLE": "vhost" if virtual else "path",
    }  # fmt: skip
    text = ", ".join(f"{name} {literal(value)}" for name, value in items.items() if value)
    return f"TYPE s3, {text}, USE_SSL {str(not endpoint.startswith('http://')).lower()}"


# --- obstore


@cache
def _filesystem() -> Any:
    """The class of a DuckDB filesystem on obstore. Made when it is first needed: fsspec takes a while to import."""
    import obstore
    from fsspec import AbstractFileSystem

    class Stores(AbstractFileSystem):  # type: ignore[misc]
        """The files of every store that one lake can reach."""

        cachable = False

        def __init__(self, access: Access) -> None:
            super().__init__()
            self._access = access
            self.protocol = [access.prefix + scheme for scheme in SCHEMES]

        def __repr__(self) -> str:
            return f"<object stores behind {self._access.prefix}>"

        def _url(self, path: str) -> str:
            return path.removeprefix(self._access.prefix)

        def open(self, path: str, mode: str = "rb", **_: Any) -> Any:
            url = self._url(path)
            return _Reader(self._access, url, self.size(path)) if "r" in mode else _Writer(self._access, url)

        def _head(self, path: str) -> tuple[int, float]:
            url, known = self._url(path), self._access.heads
            if (found := known.get(url)) is None:
                with _marked(self._access, url, "read"):
                    store, key = self._access.store(url)
                    meta = obstore.head(store, key)
                found = meta["size"], meta["last_modified"].timestamp()
                if "/_delta_log/" not in url:
                    if len(known) >= KNOWN_FILES:
                        known.clear()
                    known[url] = found
            return found

        def size(self, path: str) -> int:
            return self._head(path)[0]

        def modified(self, path: str) -> datetime:
            return datetime.fromtimestamp(self._head(path)[1], UTC)

        def glob(self, path: str, **_: Any) -> list[str]:
            return [path]  # names are of files: nobody asks for a pattern

        def exists(self, path: str, **_: Any) -> bool:
            return False  # asked before a file is written, under a name that nobody else has

        isfile = isdir = exists

        def mkdir(self, path: str, *_: Any, **__: Any) -> None:
            pass

    return Stores


class _Reader:
    """A file that is read by byte ranges."""

    def __init__(self, access: Access, url: str, size: int) -> None:
        self._access, self._url, self._size, self._at = access, url, size, 0

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        import obstore

        rest = max(self._size - self._at, 0)
        size = rest if size < 0 else min(size, rest)
        if not size:
            return b""
        with _marked(self._access, self._url, "read"):
            store, key = self._access.store(self._url)
            data = bytes(obstore.get_range(store, key, start=self._at, length=size))
            if len(data) != size:
                raise OSError(f"the store sent {len(data)} bytes of {size}")
        self._at += size
        return data

    def close(self) -> None:
        pass


class _Writer:
    """A file that is streamed to the store; there when closed."""

    def __init__(self, access: Access, url: str) -> None:
        import obstore

        self._access, self._url, self._size, self._done = access, url, 0, False
        access.unfinished[url] = "it was not written to its end"
        store, key = access.store(url)
        self._file = obstore.open_writer(store, key, buffer_size=PART, max_concurrency=PARTS_AT_ONCE)

    def write(self, data: bytes) -> int:
        with self._kept():
            self._file.write(bytes(data))
        self._size += len(data)
        return len(data)

    def tell(self) -> int:
        return self._size

    def flush(self) -> None:
        pass  # the store knows files, not beginnings of them

    def close(self) -> None:
        if not self._done:
            self._done = True
            with self._kept():
                self._file.close()
            self._access.unfinished[self._url] = ""

    @contextlib.contextmanager
    def _kept(self) -> Any:
        """An error is DuckDB's to report, which does not promise to."""
        try:
            with _marked(self._access, self._url, "write"):
                yield
        except StorageError as e:
            self._access.unfinished[self._url] = str(e).removeprefix(MARK)
            raise


@contextlib.contextmanager
def _marked(access: Access, url: str, verb: str) -> Any:
    try:
        with translated(access, url, verb):
            yield
    except StorageError as e:
        missing = isinstance(e.__cause__, FileNotFoundError) and "NoSuchBucket" not in str(e.__cause__)
        raise StorageError(f"{MARK}{MISSING + url if missing else e}") from None
