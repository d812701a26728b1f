"""Runs in an environment with DuckDB 1.5 and its extensions: a JSON request per line in, {"seconds": …} out."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import duckdb
import pyarrow.parquet as pq
from deltalake import DeltaTable, write_deltalake
from duckdb_extensions import import_extension

import_extension("delta")
import_extension("ducklake")
con = duckdb.connect()
con.execute("LOAD delta; LOAD ducklake")


def attach(name: str, root: str, options: str = "") -> None:
    con.execute(f"ATTACH 'ducklake:{root}/{name}.ducklake' AS {name} (DATA_PATH '{root}/{name}/'{options})")


def ducklake_table(name: str, root: str, inline: bool) -> None:
    """A lake with an empty table: rows in Parquet only, or small inserts inlined into the catalog, as is its default."""
    attach(name, root, "" if inline else ", DATA_INLINING_ROW_LIMIT 0")
    con.execute(f"CREATE TABLE {name}.events (id BIGINT, name VARCHAR, value DOUBLE)")


def ducklake_append(name: str, first: int, count: int) -> None:
    for i in range(first, first + count):
        con.execute(f"INSERT INTO {name}.events VALUES ({i}, 'event {i}', {i} * 1.5)")


def source(parquet: str) -> None:
    """The rows to write, in memory, as they are for everybody."""
    con.execute(f"CREATE TEMP TABLE src AS FROM read_parquet('{parquet}')")


def ducklake_write(name: str, root: str) -> None:
    con.execute(f"CREATE TABLE {name}.lineitem AS FROM src")
    con.execute(f"DROP TABLE {name}.lineitem")


def ducklake_orders(name: str, root: str, parquet: str) -> None:
    attach(name, root)
    con.execute(f"CREATE TABLE {name}.orders AS FROM read_parquet('{parquet}')")


def ducklake_on_postgres(libpq: str, root: str, tables: list[str]) -> None:
    import_extension("postgres")
    con.execute("LOAD postgres")
    con.execute(f"ATTACH 'ducklake:postgres:{libpq}' AS shared (DATA_PATH '{root}/shared/', METADATA_SCHEMA 'shared')")
    for table in tables:
        con.execute(f"CREATE TABLE shared.{table} (p BIGINT, n BIGINT)")
        con.execute(f"ALTER TABLE shared.{table} SET PARTITIONED BY (p)")


def ducklake_inserts(tables: list[str], rows: str) -> None:
    con.execute("BEGIN")
    for table in tables:
        con.execute(f"INSERT INTO shared.{table} {rows}")
    con.execute("COMMIT")


def delta_query(query: str) -> None:
    con.execute(query).fetchall()


def rs_orders(root: str, parquet: str) -> None:
    write_deltalake(root, pq.read_table(parquet))
    opened[root] = DeltaTable(root)


def rs_source(parquet: str) -> None:
    opened["source"] = pq.read_table(parquet)


def rs_merge(root: str, on: str, updates: dict[str, str]) -> None:
    merger = opened[root].merge(opened["source"], on, source_alias="s", target_alias="t")
    merger.when_matched_update(updates).when_not_matched_insert_all().execute()


def rs_delete(root: str, predicate: str) -> None:
    opened[root].delete(predicate)


opened: dict[str, Any] = {}


if __name__ == "__main__":
    for line in sys.stdin:
        request: dict[str, Any] = json.loads(line)
        try:
            run = globals()[request.pop("what")]
            start = time.perf_counter()
            run(**request)
            answer = {"seconds": time.perf_counter() - start}
        except Exception as e:
            answer = {"error": f"{type(e).__name__}: {e}"}
        print(json.dumps(answer), flush=True)
