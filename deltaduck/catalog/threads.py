"""What catalogs of a foreign database share: a connection per thread, and a DuckDB in memory to run the queries."""

from __future__ import annotations

import threading
from typing import Any

import duckdb

from deltaduck.catalog.base import Catalog


class ThreadedCatalog(Catalog):
    """A catalog whose driver's connections belong to one thread each. Adapters say how to open one."""

    def __init__(self) -> None:
        self.definitions, self.scans = {}, {}
        self.unmarked = {}
        self._local = threading.local()
        self._guard = threading.Lock()
        self._all: list[Any] = []
        self._duckdb: duckdb.DuckDBPyConnection = duckdb.connect()

    def _keep(self, connection: Any) -> None:
        """Make a new connection this thread's own."""
        self._local.connection = connection
        with self._guard:
            self._all.append(connection)

    def engine(self) -> duckdb.DuckDBPyConnection:
        return self._duckdb.cursor()

    def close(self) -> None:
        with self._guard:
            for connection in self._all:
                connection.close()
            self._all.clear()
        self._duckdb.close()
