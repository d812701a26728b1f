"""Local directories, by POSIX calls. See ``deltaduck.storage`` for what the functions promise."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from deltaduck.errors import StorageError


@contextmanager
def _translated(root: str, path: str, verb: str) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        where = os.path.join(root, path) if path else root
        raise StorageError(f"cannot {verb} {where}: {e.strerror or e}; check that the directory exists and may be written") from e


def make_root(root: str) -> None:
    """Create the directory of a table, and its parents."""
    with _translated(root, "", "create"):
        os.makedirs(os.path.join(root, "_delta_log"), exist_ok=True)


def make_directory(root: str, path: str) -> None:
    """Create a directory below a root that is there."""
    with _translated(root, path, "create"), contextlib.suppress(FileExistsError):
        os.mkdir(os.path.join(root, path))


def read(root: str, path: str) -> bytes | None:
    """The content of a file; None when there is none."""
    with _translated(root, path, "read"):
        try:
            return Path(root, path).read_bytes()
        except FileNotFoundError:
            return None


def list_log(root: str) -> dict[str, tuple[int, int]] | None:
    """name → (size in bytes, modified in ms) of the files in ``_delta_log``; None when there is no such directory."""
    found = {}
    with _translated(root, "_delta_log", "list"):
        try:
            entries = os.scandir(os.path.join(root, "_delta_log"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        with entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):  # it went meanwhile: what is under construction has other names
                    if entry.is_file():
                        status = entry.stat()
                        found[entry.name] = status.st_size, status.st_mtime_ns // 1_000_000
    return found


def exists(root: str, path: str) -> bool:
    with _translated(root, path, "look up"):
        return os.path.lexists(os.path.join(root, path))


def list_files(root: str) -> dict[str, tuple[int, int]]:
    """path → (size, modified in ms) of the files below a directory. What a link leads to is not below."""
    found, top = {}, len(os.path.join(root, ""))
    with _translated(root, "", "list"):
        for directory, _, names in os.walk(root):
            for name in names:
                path = os.path.join(directory, name)
                with contextlib.suppress(FileNotFoundError):  # it went meanwhile
                    status = os.lstat(path)
                    found[path[top:]] = status.st_size, status.st_mtime_ns // 1_000_000
    return found


def create(root: str, path: str, data: bytes) -> None:
    """Write a new file under a name that nobody else has; durable after ``persist``."""
    with open(os.path.join(root, path), "xb") as file:
        file.write(data)


def put_if_absent(root: str, path: str, data: bytes, *, modified_ms: int | None = None) -> bool:
    """Write a file whole and durably, unless one is there; False when one was.

    Readers see all of it or nothing: the bytes go to a hidden name that is then linked to the final one.
    `modified_ms` is the time that the file will say (Delta's time travel by timestamp reads it).
    """
    target = os.path.join(root, path)
    hidden = _hidden(target)
    with _translated(root, path, "write"):
        _write_durably(hidden, data)
        return _publish(hidden, target, modified_ms)


def put_file_if_absent(root: str, path: str, source: str) -> bool:
    """Move a complete local file to its final name, unless one is there; False when one was."""
    with _translated(root, path, "write"):
        persist([source])
        return _publish(source, os.path.join(root, path), None)


def replace(root: str, path: str, data: bytes, *, modified_ms: int | None = None) -> None:
    """Write a file whole and durably, over any that is there."""
    target = os.path.join(root, path)
    hidden = _hidden(target)
    with _translated(root, path, "write"):
        _write_durably(hidden, data)
        if modified_ms is not None:
            os.utime(hidden, ns=(modified_ms * 1_000_000, modified_ms * 1_000_000))
        os.replace(hidden, target)


def write_new(root: str, files: Sequence[tuple[str, bytes, int]]) -> None:
    """Write (path, content, modified in ms) where nothing is yet; not durable: for copies."""
    for path, data, modified_ms in files:
        with _translated(root, path, "write"):
            with open(os.path.join(root, path), "xb") as out:
                out.write(data)
            os.utime(out.name, ns=(modified_ms * 1_000_000, modified_ms * 1_000_000))


def scratch(root: str) -> str:
    """A path in the log directory for a file under construction, invisible to readers."""
    return _hidden(os.path.join(root, "_delta_log", "checkpoint"))


def persist(files: Sequence[str]) -> None:
    """Make files, and their names, survive a power cut."""
    for name in files:
        _sync(name)
    for directory in {os.path.dirname(name) for name in files}:
        _sync(directory)


def remove(files: Sequence[str]) -> None:
    """Delete files that nothing refers to; those already gone are no error."""
    for name in files:
        Path(name).unlink(missing_ok=True)


def remove_begun(root: str, prefix: str) -> None:
    """Delete what a writer that failed left below `root`: files whose names begin so."""
    for file in Path(root).rglob(prefix + "*"):
        file.unlink(missing_ok=True)


def _hidden(target: str) -> str:
    directory, name = os.path.split(target)
    return os.path.join(directory, f".{name}.{uuid.uuid4().hex}.tmp")


def _write_durably(path: str, data: bytes) -> None:
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        os.fsync(fd)
    except BaseException:
        os.unlink(path)
        raise
    finally:
        os.close(fd)


def _publish(hidden: str, target: str, modified_ms: int | None) -> bool:
    try:
        if modified_ms is not None:
            os.utime(hidden, ns=(modified_ms * 1_000_000, modified_ms * 1_000_000))
        os.link(hidden, target)
    except FileExistsError:
        return False
    finally:
        os.unlink(hidden)
    _sync(os.path.dirname(target))
    return True


def _sync(path: str) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
