"""What catalogs of a foreign database share: a bounded pool of connections, and a DuckDB in memory to run the queries."""

from __future__ import annotations

import contextlib
import threading
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import duckdb

from deltaduck.catalog.base import Catalog
from deltaduck.errors import CatalogError

POOL_SIZE = 16
WAIT_SECONDS = 60.0  # for a connection, when all are lent


class PooledCatalog(Catalog):
    """A statement borrows a connection; a transaction keeps one for its thread until it ends. Adapters say how to open one."""

    def __init__(self, size: int) -> None:
        self.definitions, self.scans = {}, {}
        self.unmarked = {}
        self._size = size
        self._free = threading.BoundedSemaphore(size)
        self._idle: list[Any] = []
        self._local = threading.local()
        self._closed = False
        self._duckdb: duckdb.DuckDBPyConnection = duckdb.connect()

    @abstractmethod
    def _connect(self) -> Any:
        """A new connection."""

    @abstractmethod
    def _is_usable(self, connection: Any) -> bool:
        """May somebody else have the connection now? What is not usable is closed."""

    @contextmanager
    def _lent(self) -> Iterator[Any]:
        """A connection: the one that this thread keeps, or any."""
        if (kept := self._kept()) is not None:
            yield kept
            return
        if not self._free.acquire(timeout=WAIT_SECONDS):
            raise CatalogError(
                f"{self.name}: all {self._size} connections of the pool were in use for {WAIT_SECONDS:.0f} seconds; "
                "end transactions sooner, or allow more with pool_size=... in the URI"
            )
        try:
            if self._closed:
                raise CatalogError(f"{self.name} is closed: open it again with deltaduck.connect")
            connection = self._take()
            try:
                yield connection
            finally:
                if self._is_usable(connection) and not self._closed:
                    self._idle.append(connection)
                else:
                    connection.close()
        finally:
            self._free.release()

    def _take(self) -> Any:
        with contextlib.suppress(IndexError):
            return self._idle.pop()  # the one used last: it is the least likely to have died of age
        return self._connect()

    def _kept(self) -> Any:
        return getattr(self._local, "connection", None)

    @contextmanager
    def _keeping(self) -> Iterator[Any]:
        """One connection for all that this thread does meanwhile."""
        with self._lent() as connection:
            self._local.connection = connection
            try:
                yield connection
            finally:
                self._local.connection = None

    def engine(self) -> duckdb.DuckDBPyConnection:
        return self._duckdb.cursor()

    def close(self) -> None:
        self._closed = True
        self._forget_idle()
        self._duckdb.close()

    def _forget_idle(self) -> None:
        with contextlib.suppress(IndexError):
            while True:
                self._idle.pop().close()
