"""One measurement in a process of its own: from its imports done to knowing which files hold ``id = wanted``.

DuckDB's delta extension lists files only while it runs a query, so it counts the rows, and the one file it opens is there.
Loading the extension is not counted, like an import.
"""

from __future__ import annotations

import json
import sys
import time


def ours(directory: str, wanted: int) -> tuple[float, int]:
    import deltaduck

    start = time.perf_counter()
    lake = deltaduck.connect(f"{directory}/lake.duckdb")
    files = lake.table("events").files(f"id = {wanted}")
    return time.perf_counter() - start, files.num_rows


def delta_rs(directory: str, wanted: int) -> tuple[float, int]:
    from deltalake import DeltaTable

    start = time.perf_counter()
    files = DeltaTable(f"{directory}/lake.delta/events").file_uris(file_pruning_predicate=f"id = {wanted}")
    return time.perf_counter() - start, len(files)


def duckdb_delta(directory: str, wanted: int) -> tuple[float, int]:
    import duckdb
    from duckdb_extensions import import_extension

    import_extension("delta")
    start = time.perf_counter()
    con = duckdb.connect()
    opened = time.perf_counter() - start
    con.execute("LOAD delta")
    start = time.perf_counter()
    query = f"SELECT count(*) FROM delta_scan('{directory}/lake.delta/events') WHERE id = {wanted}"
    row = con.execute(query).fetchone()
    return opened + time.perf_counter() - start, row[0] if row else 0


if __name__ == "__main__":
    who, directory, wanted = sys.argv[1:]
    run = {"ours": ours, "delta-rs": delta_rs, "duckdb delta": duckdb_delta}[who]
    seconds, files = run(directory, int(wanted))
    print(json.dumps({"seconds": seconds, "files": files}))
