"""Changing rows by copy-on-write: files that hold a matching row are written anew, the others stay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from deltaduck import casts, parquet, scan
from deltaduck import predicate as predicates
from deltaduck.catalog.base import now_ms
from deltaduck.changes import Change
from deltaduck.errors import ConstraintViolationError, SchemaMismatchError
from deltaduck.predicate import Condition
from deltaduck.protocol.features import check_writable
from deltaduck.protocol.schema import quote, to_duckdb
from deltaduck.rules import GENERATED

if TYPE_CHECKING:
    from deltaduck.transaction import Transaction


def delete_rows(tx: Transaction, change: Change, predicate: str | None) -> dict[str, int]:
    """Stage the deletion of the rows that match (of all rows, without a predicate)."""
    files, matched = _matching_files(tx, change, predicate)
    if files.num_rows:
        require_removable(change)
        columns = [(f.name, quote(f.name)) for f in change.after.schema]
        _replace(tx, change, files, columns, f"WHERE ({predicate or 'true'}) IS NOT TRUE")
    return {"rows": matched, "files": files.num_rows}


def update_rows(tx: Transaction, change: Change, assignments: Mapping[str, str], predicate: str | None) -> dict[str, int]:
    """Stage new values, given as SQL over the old row, for the rows that match."""
    schema = change.after.schema
    new: dict[str, str] = {}
    for name, sql in assignments.items():
        f = schema.get(name)
        if f is None:
            raise SchemaMismatchError(f"table {change.name!r} has no column {name!r}; it has {', '.join(schema.names)}")
        if predicates.has_query(predicates.parse(sql)):
            tx.lake.show_tables()
        new[f.name] = casts.required(f"CAST(({sql}) AS {to_duckdb(f.type)})", f)
    files, matched = _matching_files(tx, change, predicate)
    if files.num_rows:
        require_removable(change)
        hit = f"({predicate or 'true'}) IS TRUE"
        columns = [
            (f.name, f"CASE WHEN {hit} THEN {new[f.name]} ELSE {quote(f.name)} END" if f.name in new else quote(f.name))
            for f in schema
            if f.name in new or GENERATED not in f.metadata  # generated values follow from the new ones
        ]
        _replace(tx, change, files, columns, "")
    return {"rows": matched, "files": files.num_rows}


def require_removable(change: Change) -> None:
    if change.after.configuration.get("delta.appendOnly", "false").lower() == "true":
        raise ConstraintViolationError(
            f"table {change.name!r} is append-only (delta.appendOnly=true): rows cannot be removed or changed"
        )


def _matching_files(tx: Transaction, change: Change, predicate: str | None) -> tuple[pa.Table, int]:
    """The files that hold a matching row, and how many rows match. Only files that can match are opened."""
    check_writable(change.after.protocol, change.name)
    tree = None if predicate is None else predicates.parse(predicate)
    if tree is not None and predicates.has_query(tree):
        tx.lake.show_tables()
    condition = Condition() if tree is None else tx.compile(change.after, tree, [change.name])
    change.reads.append(condition)
    files = tx.visible(change.after, condition)
    if not files.num_rows:
        return files, 0
    con = tx.lake.con.cursor()
    source = f"({scan.scan_sql(con, change.after, files, 'file_index AS dl_file')}) AS {quote(change.name)}"
    query = f"SELECT dl_file, count(*) AS n FROM {source} WHERE ({predicate or 'true'}) IS TRUE GROUP BY dl_file ORDER BY dl_file"
    try:
        counts = con.sql(query).to_arrow_table()
    except duckdb.Error as e:
        raise parquet.translate(e, change.after.location) from e
    return files.take(counts["dl_file"].cast(pa.int64())), pc.sum(counts["n"]).as_py() or 0


def _replace(tx: Transaction, change: Change, files: pa.Table, columns: list[tuple[str, str]], where: str) -> None:
    """Write the surviving rows of `files` anew, and stage the exchange."""
    con: Any = tx.lake.con.cursor()
    source = scan.scan_sql(con, change.after, files)
    from_sql = f"({source}) AS {quote(change.name)} {where}"
    adds, written = parquet.write_files(con, from_sql, columns, change.target(), now_ms())
    tx.remove(change, files)
    tx.add(change, adds, written)
