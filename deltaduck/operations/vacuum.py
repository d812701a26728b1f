"""Deleting data files that no version within the retention needs. The catalog knows them: nothing is listed, unless asked."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote as quote_path
from urllib.parse import unquote

import pyarrow as pa

from deltaduck import storage
from deltaduck.catalog.base import now_ms
from deltaduck.errors import ConstraintViolationError, MirrorError
from deltaduck.protocol.deletion_vectors import DeletionVector
from deltaduck.protocol.features import check_writable, interval_ms
from deltaduck.snapshot import Snapshot

if TYPE_CHECKING:
    from deltaduck.lake import Lake

HOUR_MS = 3_600_000
VECTOR = re.compile(r"deletion_vector_[0-9a-f-]{36}\.bin")  # the name of a deletion vectors' file


def vacuum(
    lake: Lake, table: str, retention_hours: float | None = None, *, dry_run: bool = True,
    enforce_retention_duration: bool = True, full: bool = False, keep_versions: Sequence[int] | None = None,
) -> list[str]:  # fmt: skip
    """Delete, or only list, the files that no version within the retention needs: their paths below the table's root.

    Versions that held them cannot be read afterwards. full: look into the directory too, for what crashed writers left.
    keep_versions: versions that stay whole whatever their age.
    """
    snapshot = lake.snapshot(table)
    check_writable(snapshot.protocol, snapshot.name)
    least = interval_ms(snapshot.configuration, "delta.deletedFileRetentionDuration", "7 days")
    retention = least if retention_hours is None else int(retention_hours * HOUR_MS)
    if retention < 0 or (enforce_retention_duration and retention < least):
        raise ConstraintViolationError(
            f"table {table!r}: a retention of {retention / HOUR_MS:g} hours is below the {least / HOUR_MS:g} of "
            "delta.deletedFileRetentionDuration: running queries and writers may need the files; nothing was deleted; "
            "enforce_retention_duration=False takes the risk, ALTER TABLE ... SET TBLPROPERTIES lowers the limit"
        )
    if full:
        _require_own_log(lake, snapshot)
    before = now_ms() - retention
    listed = storage.list_files(snapshot.location) if full else {}
    catalog = lake.catalog
    with catalog.snapshot() if dry_run else catalog.transaction():
        if not dry_run:
            catalog.rows("table_state", table_id=snapshot.table_id)  # locks it
        unneeded = _unneeded(lake, snapshot, before, keep_versions or ())
        if not dry_run:  # on record before they go: no commit begins to need what is about to be deleted
            _record(lake, snapshot, unneeded)
    names = unneeded.names()
    names += find_orphans(lake, snapshot, before, names, listed)
    if not dry_run:
        catalog.scans.clear()  # of versions whose files go
        storage.delete(snapshot.location, [unquote(name) for name in names])
    return sorted(names)


def _require_own_log(lake: Lake, snapshot: Snapshot) -> None:
    """MirrorError when somebody else has committed to the table: his files are in no version that the catalog knows."""
    listed = [int(name[:20]) for name in storage.list_log(snapshot.location) or {} if re.fullmatch(r"\d{20}\.json", name)]
    now = lake.snapshot(snapshot.name).version  # after the look into the log: what was there of ours is committed
    diverged = [version for table_id, version in lake.catalog.rows("diverged") if table_id == snapshot.table_id]
    if found := diverged or [version for version in listed if version > now]:
        raise MirrorError(
            f"table {snapshot.name!r}: somebody else wrote version {min(found)} to its _delta_log, and VACUUM FULL would delete "
            f"the files of that; nothing was deleted: lake.mirror.adopt({snapshot.name!r}) takes it in"
        )


class _Unneeded(NamedTuple):
    """Paths, and deletion vectors' files, as the log has them."""

    paths: list[str]
    vectors: list[str]

    def names(self) -> list[str]:
        """All of them, as paths."""
        return [*self.paths, *(quote_path(_vector_file("u", text), safe="/=") for text in self.vectors)]


def _unneeded(lake: Lake, snapshot: Snapshot, before: int, keep_versions: Sequence[int]) -> _Unneeded:
    """Files that are the table's own and whose last version is older than `before`."""
    catalog = lake.catalog
    kept = " OR ".join(f"(b.version <= {int(v)} AND b.removed_version > {int(v)})" for v in keep_versions) or "FALSE"
    scope = {"table_id": snapshot.table_id, "before_ms": before}
    paths, vectors = (
        [text for (text,) in catalog.fetch(catalog.sql(name).format(kept=kept), scope)]
        for name in ("vacuum_candidates", "vacuum_vectors")
    )
    borrowed = _borrowed(lake, snapshot)
    below = _Below(snapshot.location)

    def is_own(path: str) -> bool:
        name = None if _is_absolute(path) else below.name(path)
        return name is not None and name not in borrowed

    return _Unneeded([*filter(is_own, paths)], [v for v in vectors if is_own(quote_path(_vector_file("u", v)))])


def _vector_file(kind: str, text: str) -> str:
    path = DeletionVector(kind, text, None, 0, 0).path
    assert path is not None
    return path


def _borrowed(lake: Lake, snapshot: Snapshot) -> set[str]:
    """Files of the table that shallow clones of it in the lake need, by their names below its root."""
    below = _Below(snapshot.location)
    return {n for (p,) in lake.catalog.rows("borrowed_paths", table_id=snapshot.table_id) if (n := below.name(p)) is not None}


def _is_absolute(path: str) -> bool:
    return path.startswith(("/", "file:")) or "://" in path or unquote(path).startswith("/")


class _Below:
    """The names of files below a table's root, and not in its log, by whatever links a path of a log leads there."""

    def __init__(self, root: str) -> None:
        self.root = root if storage.is_remote(root) else os.path.realpath(root)
        self.directories: dict[str, str | None] = {}

    def name(self, path: str) -> str | None:
        """None when it leads elsewhere."""
        if storage.is_remote(self.root):  # names, not links
            return self._name_in_store(path)
        if "://" in path and not path.startswith("file:"):
            return None
        directory, name = os.path.split(os.path.join(self.root, re.sub("^file:/+", "/", unquote(path))))
        if directory not in self.directories:
            inner = os.path.relpath(os.path.realpath(directory), self.root)
            outside = inner.split(os.sep)[0] in (os.pardir, "_delta_log")
            self.directories[directory] = None if outside else "" if inner == os.curdir else f"{inner}/"
        found = self.directories[directory]
        return None if found is None else found + name

    def _name_in_store(self, path: str) -> str | None:
        place, name = self.root.partition("://")[2], unquote(path)
        if "://" in path or name.startswith("/"):  # a leading / is the bucket's own
            full = name.partition("://")[2] if "://" in path else place.split("/")[0] + name
            if not full.startswith(f"{place}/"):
                return None
            name = full[len(place) + 1 :]
        parts = name.split("/")
        return None if parts[0] == "_delta_log" or {".", ".."} & {*parts} else name


def find_orphans(
    lake: Lake, snapshot: Snapshot, before: int, unneeded: Sequence[str], files: Mapping[str, tuple[int, int]]
) -> list[str]:
    """Of the files below the table's root, those older than `before` that no version of it and no clone knows: paths as a log
    has them.

    Hidden directories, the log among them, and other tables' roots are not the table's data; nor is what a link leads to.
    """
    if not files:
        return []
    below, catalog = _Below(snapshot.location), lake.catalog
    paths = [path for (path,) in catalog.rows("known_paths", table_id=snapshot.table_id)]
    paths += [_vector_file(*row) for row in catalog.rows("known_vectors", table_id=snapshot.table_id)]
    known = {*map(below.name, paths), *map(unquote, unneeded), *_borrowed(lake, snapshot)}
    parts = tuple(f"{f.physical_name}=" for f in snapshot.schema if f.name in snapshot.partition_columns)
    inner = {path.split("_delta_log/")[0] for path in files if "/_delta_log/" in path}
    root = f"{snapshot.location}/"
    inner |= {f"{place.removeprefix(root)}/" for _, _, _, place, *_ in catalog.rows("list_tables") if place.startswith(root)}
    others = tuple(inner)
    found = []
    for path, (_, modified) in files.items():
        *directories, name = path.split("/")
        hidden = any(d.startswith(("_", ".")) and d != "_change_data" and not d.startswith(parts) for d in directories)
        if not (hidden or path in known or path.startswith(others)) and _may_go(name) and modified < before:
            found.append(quote_path(path, safe="/="))
    return found


def _may_go(name: str) -> bool:
    """Hidden files may be anybody's, but for temporary ones; of files that are no tables' data, so may .bin."""
    if name.startswith(("_", ".")):
        return name.endswith((".tmp", ".crc"))
    return not name.endswith(".bin") or VECTOR.fullmatch(name) is not None


def _record(lake: Lake, snapshot: Snapshot, unneeded: _Unneeded) -> None:
    """Let the catalog know which files go: time travel says so, and the next vacuum need not look at them."""
    statements = ((unneeded.paths, ("mark_deleted_files", "mark_deleted_changes")), (unneeded.vectors, ("mark_deleted_vectors",)))
    for texts, marks in statements:
        if texts:
            with lake.catalog.staged("dl_staged_paths", pa.table({"path": pa.array(texts, pa.string())})):
                for mark in marks:
                    lake.catalog.run(mark, table_id=snapshot.table_id, now_ms=now_ms())
