"""A DuckDB for reading thousands of small local files, each of them once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import duckdb

from deltaduck.protocol.schema import literal

UNWANTED = {  # by files that are read once, each in less time than another thread takes to wake up
    "enable_external_file_cache": "false",
    "validate_external_file_cache": "'NO_VALIDATION'",
    "disable_parquet_prefetching": "true",
    "async_threads": "0",
    "preserve_insertion_order": "false",  # a CREATE TABLE of what stands in 10,000 files takes five times as long with it
}


@contextmanager
def engine(con: Any) -> Iterator[Any]:
    """A DuckDB of its own, without what is `UNWANTED` and can be set for all of an instance only. What it has taken of memory is
    given back at the end. `con` says how much it may have, where it spills, and in which time zone it is."""
    ((memory, spill, threads, zone),) = con.execute(
        "SELECT current_setting('memory_limit'), current_setting('temp_directory'), current_setting('threads'), "
        "current_setting('TimeZone')"
    ).fetchall()
    own = duckdb.connect(config={"memory_limit": memory, "temp_directory": spill, "threads": threads})
    try:
        for name, value in {**UNWANTED, "TimeZone": literal(zone)}.items():
            with suppress(duckdb.CatalogException):  # DuckDB 1.5 has not all of them
                own.execute(f"SET {name} = {value}")
        yield own
    finally:
        own.close()


def threads(engine: Any) -> int:
    """How many threads a DuckDB works with."""
    ((found,),) = engine.execute("SELECT current_setting('threads')").fetchall()
    return int(found)


def gathered(engine: Any, queries: Sequence[str]) -> str:
    """A FROM item: the rows of some queries, in the order of the queries and in each one's own.

    A query is run by one thread. So nothing needs to be sorted, and what planning it takes does not wait for the others."""
    at_once = threads(engine)
    engine.execute("SET threads = 1; SET preserve_insertion_order = true")

    def put(n: int, query: str) -> None:
        engine.cursor().execute(f"CREATE TABLE part_{n} AS {query}")

    try:
        with ThreadPoolExecutor(at_once) as pool:
            list(pool.map(put, range(len(queries)), queries))
    finally:
        engine.execute(f"SET threads = {at_once}")
    return f"({' UNION ALL '.join(f'FROM part_{n}' for n in range(len(queries)))})"
