"""Where data files and the mirror live: list, read, put-if-absent, durable.

Every function takes a table's or lake's `root`, as ``normalize`` gives it, and paths relative to it. A root is a local
directory (``local``) or the URL of a place on an object store (``remote``); DuckDB reaches it by ``engine``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote

from deltaduck.errors import StorageError
from deltaduck.storage import engine, local, remote
from deltaduck.storage.engine import complaint, while_binding
from deltaduck.storage.remote import SCHEMES, Access, Root, is_remote

__all__ = [
    "Access", "Root", "complaint", "create", "delete", "engine_prefix", "exists", "is_remote", "join", "list_files",
    "list_log", "locate", "make_directory", "make_root", "normalize", "persist", "put_file_if_absent", "put_if_absent", "read",
    "read_all", "read_each", "readable", "remove", "remove_begun", "replace", "scratch", "while_binding", "writable",
]  # fmt: skip


def normalize(root: str | os.PathLike[str], access: Access | None = None) -> str:
    """An absolute root without a trailing slash. StorageError for a URL that names no place.

    access: the lake's way to object stores; without it, the environment's.
    """
    text = os.fspath(root)
    if text.startswith("file:/"):
        text = re.sub("^file:/+", "/", text)
    if "://" not in text:
        return Root(os.path.abspath(os.path.expanduser(text)), access)
    scheme, _, place = text.partition("://")
    bucket = place.split("/", 1)[0]
    if scheme not in SCHEMES:
        known = ", ".join(f"{s}://" for s in SCHEMES)
        raise StorageError(f"storage {scheme}:// is unknown; give a directory, or a URL that begins with {known}")
    if not bucket or any(c in place for c in "?#*[]\\") or ":" in bucket or any(p in ("", ".", "..") for p in _inner(place)):
        raise StorageError(f"a {scheme}:// URL is {scheme}://bucket/path and nothing else: credentials belong in storage_options")
    return Root(text.rstrip("/"), access)


def _inner(place: str) -> list[str]:
    return place.rstrip("/").split("/")[1:]


def join(root: str, path: str) -> str:
    """The full name of a file below a root, as ``persist`` and ``remove`` take it."""
    return Root(f"{root}/{path}", getattr(root, "access", None))


def make_root(root: str) -> None:
    """Create the directory of a table, and its parents; of a store, see that it answers."""
    if is_remote(root):
        remote.check(root)
    else:
        local.make_root(root)


def make_directory(root: str, path: str) -> None:
    """Create a directory below a root that is there; a store needs none."""
    if not is_remote(root):
        local.make_directory(root, path)


def read(root: str, path: str) -> bytes | None:
    """The content of a file; None when there is none."""
    return remote.read(root, path) if is_remote(root, path) else local.read(root, path)


def read_each(root: str, paths: Sequence[str]) -> list[bytes | None]:
    """The contents of files, None for one that is not there; from a store many at a time."""
    if is_remote(root) or any("://" in path for path in paths):
        return remote.read_each(root, paths)
    return [local.read(root, path) for path in paths]


def read_all(root: str, paths: Sequence[str]) -> list[bytes]:
    """The contents of files that are there. StorageError for one that is not."""
    contents = []
    for path, data in zip(paths, read_each(root, paths), strict=True):
        if data is None:
            raise StorageError(f"cannot read {root}/{path}: it is not there")
        contents.append(data)
    return contents


def list_log(root: str) -> dict[str, tuple[int, int]] | None:
    """name → (size in bytes, modified in ms) of the files in ``_delta_log``; None when there is no such directory."""
    return remote.list_log(root) if is_remote(root) else local.list_log(root)


def exists(root: str, path: str) -> bool:
    """Is there a file of that name?"""
    return remote.exists(root, path) if is_remote(root) else local.exists(root, path)


def missing(root: str, paths: Sequence[str]) -> list[str]:
    """Those of the files that a log names that are not there. Many on an object store are looked up by one listing."""
    listed = list_files(root) if is_remote(root) and len(paths) > 100 else None

    def is_there(top: str, name: str) -> bool:
        return name in listed if listed is not None and top == root else exists(top, name)

    return [path for path in paths if not is_there(*locate(root, path))]


def list_files(root: str) -> dict[str, tuple[int, int]]:
    """path → (size in bytes, modified in ms) of every file below a place."""
    return remote.list_files(root) if is_remote(root) else local.list_files(root)


def locate(root: str, path: str) -> tuple[str, str]:
    """(root, path) of a file that a log names: relative to the table's root, or absolute."""
    if path.startswith("file:/") or (path.startswith("/") and not is_remote(root)):
        return "/", "/" + unquote(path.removeprefix("file:")).lstrip("/")
    return root, unquote(path)


def create(root: str, path: str, data: bytes) -> None:
    """Write a new file under a name that nobody else has; durable after ``persist``. OSError where it is local."""
    (remote if is_remote(root) else local).create(root, path, data)


def put_if_absent(root: str, path: str, data: bytes, *, modified_ms: int | None = None) -> bool:
    """Write a file whole and durably, unless one is there; False when one was.

    `modified_ms` is the time that the file will say (Delta's time travel by timestamp reads it); a store says its own.
    """
    if is_remote(root):
        return remote.put_if_absent(root, path, data)
    return local.put_if_absent(root, path, data, modified_ms=modified_ms)


def put_file_if_absent(root: str, path: str, source: str) -> bool:
    """Move a complete local file to its final name, unless one is there; False when one was."""
    if is_remote(root):
        return remote.put_file_if_absent(root, path, source)
    return local.put_file_if_absent(root, path, source)


def replace(root: str, path: str, data: bytes, *, modified_ms: int | None = None) -> None:
    """Write a file whole and durably, over any that is there. `modified_ms`: as in ``put_if_absent``."""
    if is_remote(root):
        remote.replace(root, path, data)
    else:
        local.replace(root, path, data, modified_ms=modified_ms)


def write_new(root: str, files: Sequence[tuple[str, bytes, int]]) -> None:
    """Write (path, content, modified in ms) where nothing is yet; not durable on a local disk: for copies."""
    if not is_remote(root):
        local.write_new(root, files)
        return
    for path, data, _ in files:
        remote.create(root, path, data)


def scratch(root: str) -> str:
    """A local path for a file under construction, invisible to readers, for ``put_file_if_absent``."""
    return remote.scratch() if is_remote(root) else local.scratch(root)


def persist(files: Sequence[str]) -> None:
    """Make files that the engine wrote, and their names, survive a power cut. StorageError for one that is not whole."""
    if files and is_remote(files[0]):
        remote.persist(files)
    elif files:
        local.persist(files)


def remove(files: Sequence[str]) -> None:
    """Delete files that nothing refers to; those already gone are no error, nor is a store that cannot do it now."""
    local.remove([name for name in files if not is_remote(name)])
    remote.remove([name for name in files if is_remote(name)])


def delete(root: str, paths: Sequence[str]) -> None:
    """Delete files below a root; those already gone are no error. StorageError for one that stays."""
    names = [join(root, path) for path in paths]
    if is_remote(root):
        remote.delete(names)
    else:
        local.remove(names)


def remove_begun(root: str, prefix: str) -> None:
    """Delete what a writer that failed left below `root`: files whose names begin so."""
    (remote if is_remote(root) else local).remove_begun(root, prefix)


# --- how DuckDB says it


def readable(connection: Any, root: str, *, plain: bool = True) -> str:
    """The name by which this connection's DuckDB reads what is below `root`. plain: no name there holds any of ?*[]#\\."""
    return engine.readable(connection, root, plain=plain) if is_remote(root) else str(root)


def writable(connection: Any, root: str) -> str:
    """The name by which this connection's DuckDB writes below `root`; end with ``persist``, or ``remove_begun``."""
    return engine.attach(connection, root) + root if is_remote(root) else str(root)


def engine_prefix(connection: Any, root: str) -> str:
    """What makes the URL of any place on a store readable by this connection's DuckDB, when put before it."""
    return engine.attach(connection, root)
