"""Which adapter a target names."""

from __future__ import annotations

import os

from deltaduck import uris
from deltaduck.catalog.base import Catalog
from deltaduck.catalog.duckdb import DuckDBCatalog
from deltaduck.catalog.postgres import PostgresCatalog
from deltaduck.catalog.sqlite import SQLiteCatalog


def open_catalog(target: uris.Target, *, trace_sql: bool | None = None) -> Catalog:
    """The catalog that a target names. trace_sql: print its statements; as DELTADUCK_TRACE_SQL says, unless told."""
    catalog: Catalog
    if target.database == "postgres":
        catalog = PostgresCatalog(target.place, target.schema, **target.options)
    else:
        catalog = SQLiteCatalog(target.place) if target.database == "sqlite" else DuckDBCatalog(target.place)
    catalog.is_traced = os.environ.get("DELTADUCK_TRACE_SQL", "0") not in ("", "0") if trace_sql is None else trace_sql
    return catalog
