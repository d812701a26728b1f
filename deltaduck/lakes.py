"""Lakes that are opened by naming a table or a catalog: one per target and process, closed with the last of who uses it."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Mapping
from typing import Any

from deltaduck import storage as stores
from deltaduck import uris
from deltaduck.catalog.opening import open_catalog
from deltaduck.errors import TableNotFoundError, UnsupportedFeatureError, UriError
from deltaduck.lake import Lake, connect
from deltaduck.table import DeltaTable, Place
from deltaduck.transaction import Transaction
from deltaduck.uris import Target


class Lease:
    """Keeps a shared lake open for as long as somebody holds it."""

    def __init__(self, lake: Lake) -> None:
        self.lake = lake
        weakref.finalize(self, _close, lake, os.getpid())


def _close(lake: Lake, pid: int) -> None:
    if os.getpid() == pid:  # what a fork inherited is its parent's to close
        lake.close()


_leases: weakref.WeakValueDictionary[Any, Lease] = weakref.WeakValueDictionary()
_guard = threading.Lock()
_inherited: list[Lease] = []


def _forked() -> None:
    """A child opens its own: connections don't survive a fork, and a lock may be held by a thread that is not there.

    What it inherited it keeps: to let go of a DuckDB is to wait for its threads, which stayed with the parent.
    """
    global _leases, _guard
    _inherited.extend(_leases.values())
    _leases, _guard = weakref.WeakValueDictionary(), threading.Lock()


os.register_at_fork(after_in_child=_forked)


def borrow(
    text: str, *, storage: str | os.PathLike[str] | None = None, create: bool = False,
    storage_options: Mapping[str, str] | None = None,
) -> Lease:  # fmt: skip
    """The lake of a target. TableNotFoundError when there is none, unless it may be created."""
    target = uris.parse(text)
    is_file = target.database != "postgres" and target.place != ":memory:"
    place = os.path.abspath(os.path.expanduser(target.place)) if is_file else target.place
    settings = (tuple(sorted(options.items())) for options in (target.options, storage_options or {}))
    # with other credentials it is another lake
    key = (target.database, place, target.schema, target.storage, target.mirror, *settings)
    with _guard:
        lease = _leases.get(key)
        if lease is None or lease.lake.closed:
            if not create:
                _require(text, target, place if is_file else None)
            lease = _leases[key] = Lease(connect(text, storage=storage, storage_options=storage_options))
    return lease


def _require(text: str, target: Target, file: str | None) -> None:
    if file is None or os.path.exists(file):
        catalog = open_catalog(target)
        try:
            if catalog.has_table("dl_lake"):
                return
        finally:
            catalog.close()
    raise TableNotFoundError(f"{uris.redact(text)}: there is no lake; deltaduck.connect and write_deltalake make one")


def begin(uri: str | os.PathLike[str], isolation: str | None = None, *, storage: str | None = None) -> Transaction:
    """A transaction over the lake of a URI or path, which is opened, or shared, until ``commit`` or ``rollback``.

    Results of its ``sql`` are to be fetched before that. storage: as in ``deltaduck.connect``.
    """
    lease = borrow(os.fspath(uri), storage=storage, create=True)
    return Transaction(lease.lake, isolation, lease)


def locate(table_uri: Any, storage_options: Mapping[str, str] | None, create: bool) -> Place:
    """The lake, opened, and the name of a table."""
    text = os.fspath(table_uri)
    if not uris.is_uri(text):
        return _plain(text, storage_options, create)
    target = uris.parse(text)
    shown = uris.redact(text)
    if target.table is None:
        raise UriError(f"{shown}: the table is missing: add ?table=<name>" + (
            " or /<schema>/<table>" if target.database == "postgres" else ""
        ))  # fmt: skip
    lease = borrow(text, create=create, storage_options=storage_options)
    return Place(lease.lake, target.table, shown, lease)


def _plain(text: str, storage_options: Mapping[str, str] | None, create: bool) -> Place:
    """The Delta table at a path, imported into a catalog in memory."""
    location = stores.normalize(text)
    refusal = (
        f"the Delta table at {location} is only read here: lake.import_table({location!r}) makes it a lake's, "
        "and deltasql://<database>/<path>?table=<name> names that for writing"
    )
    if os.path.isfile(location):
        raise UriError(f"{location} is a file, not a Delta table: deltasql://<database>/<path>?table=<name> names a lake's table")
    if create:
        raise UnsupportedFeatureError(refusal)
    name = os.path.basename(location) or "root"
    name = f"_{name}" if name.lower().startswith("dl_") else name  # those are the catalog's
    lease = Lease(connect(storage=location, storage_options=storage_options))
    lake = lease.lake
    lake.import_table(location, name)
    lake.read_only = refusal

    def refresh() -> None:
        lake.import_table(location, name, resume=True, skip_validation=True)

    return Place(lake, name, None, lease, refresh)


DeltaTable.locate = locate
