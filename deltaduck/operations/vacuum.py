"""Deleting data files that no version within the retention needs. The catalog knows them: nothing is listed, unless asked."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote as quote_path
from urllib.parse import unquote

import pyarrow as pa

from deltaduck import storage
from deltaduck.catalog.base import now_ms
from deltaduck.errors import ConstraintViolationError, MirrorError
from deltaduck.protocol.features import check_writable, interval_ms
from deltaduck.snapshot import Snapshot

if TYPE_CHECKING:
    from deltaduck.lake import Lake

HOUR_MS = 3_600_000


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
    unneeded = _unneeded(lake, snapshot, before, keep_versions or ())
    orphans = find_orphans(lake, snapshot, before, unneeded, storage.list_files(snapshot.location)) if full else []
    if not dry_run:
        storage.delete(snapshot.location, [unquote(path) for path in unneeded + orphans])
        _record(lake, snapshot, unneeded)
    return sorted(unneeded + orphans)


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


def _unneeded(lake: Lake, snapshot: Snapshot, before: int, keep_versions: Sequence[int]) -> list[str]:
    """Paths, as the log has them, of files that are the table's own and whose last version is older than `before`."""
    catalog = lake.catalog
    kept = " OR ".join(f"(b.version <= {int(v)} AND b.removed_version > {int(v)})" for v in keep_versions) or "FALSE"
    sql = catalog.sql("vacuum_candidates").format(kept=kept)
    paths = [path for (path,) in catalog.fetch(sql, {"table_id": snapshot.table_id, "before_ms": before})]
    borrowed = _borrowed(lake, snapshot)
    inside = _Inside(snapshot.location)
    return [p for p in paths if inside.holds(p) and unquote(p) not in borrowed]


def _borrowed(lake: Lake, snapshot: Snapshot) -> set[str]:
    """Files of the table that shallow clones of it in the lake need, by their names below its root."""
    root = f"{quote_path(snapshot.location, safe='/:@')}/"
    url = root if storage.is_remote(root) else f"file://{root}"
    found = lake.catalog.rows("borrowed_paths", table_id=snapshot.table_id, root=root, url=url)
    return {unquote(path.removeprefix("file://").removeprefix(root)) for (path,) in found}


class _Inside:
    """Is a path of the log below the table's root, by whatever links it goes, and not in its log?"""

    def __init__(self, root: str) -> None:
        self.root = root if storage.is_remote(root) else os.path.realpath(root)
        self.directories: dict[str, bool] = {}

    def holds(self, path: str) -> bool:
        name = unquote(path)
        if name.startswith("/") or "://" in path or path.startswith("file:"):
            return False
        if storage.is_remote(self.root):  # names, not links
            return name.split("/")[0] != "_delta_log" and not {".", ".."} & set(name.split("/"))
        directory = os.path.dirname(os.path.join(self.root, name))
        if directory not in self.directories:
            real = os.path.realpath(directory)
            inner = os.path.relpath(real, self.root).split(os.sep)
            self.directories[directory] = os.path.commonpath([real, self.root]) == self.root and inner[0] != "_delta_log"
        return self.directories[directory]


def find_orphans(
    lake: Lake, snapshot: Snapshot, before: int, unneeded: Sequence[str], files: Mapping[str, tuple[int, int]]
) -> list[str]:
    """Of the files below the table's root, those older than `before` that no version of it and no clone knows: paths as a log
    has them.

    Hidden directories, the log among them, and other tables' roots are not the table's data; nor is what a link leads to.
    """
    known = {unquote(path) for (path,) in lake.catalog.rows("known_paths", table_id=snapshot.table_id)}
    known |= {*map(unquote, unneeded), *_borrowed(lake, snapshot)}
    parts = tuple(f"{name}=" for name in snapshot.partition_columns)
    inner = {path.split("_delta_log/")[0] for path in files if "/_delta_log/" in path}
    root = f"{snapshot.location}/"
    inner |= {f"{place.removeprefix(root)}/" for _, _, _, place, *_ in lake.catalog.rows("list_tables") if place.startswith(root)}
    others = tuple(inner)
    found = []
    for path, (_, modified) in files.items():
        *directories, name = path.split("/")
        hidden = any(d.startswith(("_", ".")) and not d.startswith(parts) for d in directories)
        if not (hidden or path in known or path.startswith(others)) and _may_go(name) and modified < before:
            found.append(quote_path(path, safe="/="))
    return found


def _may_go(name: str) -> bool:
    """Hidden files may be anybody's, but for temporary ones; a deletion vector's file says not whose it is."""
    if name.startswith(("_", ".")):
        return name.endswith((".tmp", ".crc"))
    return not name.endswith(".bin")


def _record(lake: Lake, snapshot: Snapshot, paths: Sequence[str]) -> None:
    """Let the catalog know which files are gone: time travel says so, and the next vacuum need not look at them."""
    if paths:
        scope: dict[str, Any] = {"table_id": snapshot.table_id, "now_ms": now_ms()}
        with (
            lake.catalog.transaction(),
            lake.catalog.staged("dl_staged_paths", pa.table({"path": pa.array(list(paths), pa.string())})),
        ):
            lake.catalog.run("mark_deleted_files", **scope)
            lake.catalog.run("mark_deleted_changes", **scope)
