"""Runs in the environment of another DuckDB: answers queries over its delta extension, one JSON line each.

Request: {"sql": "... delta_scan(...) ...", "out": "rows.arrow"}. Answer: {"ok": true}, or {"error": "..."}.
"""

from __future__ import annotations

import json
import sys

import duckdb
import pyarrow as pa
from duckdb_extensions import import_extension


def main() -> None:
    con = duckdb.connect()
    import_extension("delta")
    con.execute("LOAD delta; SET TimeZone = 'UTC'")
    for line in sys.stdin:
        request = json.loads(line)
        try:
            rows = con.sql(request["sql"]).to_arrow_table()
            with pa.OSFile(request["out"], "wb") as file, pa.ipc.new_stream(file, rows.schema) as writer:
                writer.write_table(rows)
            answer: dict[str, object] = {"ok": True}
        except Exception as e:
            answer = {"error": f"{type(e).__name__}: {e}"}
        print(json.dumps(answer), flush=True)


main()
