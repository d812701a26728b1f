"""The Python twins of DELETE, UPDATE and MERGE, with the names and metrics of the deltalake package."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from deltaduck import predicate as predicates
from deltaduck.errors import QueryError
from deltaduck.frontends import dml, from_items, merge, rows, sql
from deltaduck.frontends.merge import When
from deltaduck.frontends.parameters import value_sql
from deltaduck.operations.merge import MATCHED, NOT_MATCHED, NOT_MATCHED_BY_SOURCE
from deltaduck.protocol.schema import Field, to_duckdb

if TYPE_CHECKING:
    from deltaduck.lake import Lake
    from deltaduck.transaction import Transaction


class TableMerger:
    """What a merge does, clause by clause; ``execute()`` does it. Clauses of a kind are tried in the order they were given.

    Expressions are SQL over the two aliases. Made by ``DeltaTable.merge`` and ``Transaction.merge``.
    """

    def __init__(
        self, lake: Lake, table: str, source: Any, predicate: str, tx: Transaction | None = None, *,
        source_alias: str | None = None, target_alias: str | None = None, merge_schema: bool = False,
        error_on_type_mismatch: bool = True, tell: Callable[[Transaction], None] | None = None,
    ) -> None:  # fmt: skip
        self._lake, self._table, self._source, self._tx = lake, table, source, tx
        self._on = predicates.parse(predicate)
        self._source_alias, self._target_alias = source_alias or "source", target_alias or "target"
        self._merge_schema, self._exact = merge_schema, error_on_type_mismatch
        self._tell = tell
        self._whens: list[When] = []

    def when_matched_update(self, updates: Mapping[str, str], predicate: str | None = None) -> TableMerger:
        """Set columns of a row that matches, where the predicate holds too."""
        return self._add(MATCHED, "update", predicate, updates)

    def when_matched_update_all(self, predicate: str | None = None, except_cols: Sequence[str] | None = None) -> TableMerger:
        """Set every column that the source has, except some, of a row that matches."""
        return self._add(MATCHED, "update", predicate, but=except_cols)

    def when_matched_delete(self, predicate: str | None = None) -> TableMerger:
        """Delete a row that matches."""
        return self._add(MATCHED, "delete", predicate, {})

    def when_not_matched_insert(self, updates: Mapping[str, str], predicate: str | None = None) -> TableMerger:
        """Insert a row of the source that matches nothing, with these values."""
        return self._add(NOT_MATCHED, "insert", predicate, updates)

    def when_not_matched_insert_all(self, predicate: str | None = None, except_cols: Sequence[str] | None = None) -> TableMerger:
        """Insert a row of the source that matches nothing, with all its columns except some."""
        return self._add(NOT_MATCHED, "insert", predicate, but=except_cols)

    def when_not_matched_by_source_update(self, updates: Mapping[str, str], predicate: str | None = None) -> TableMerger:
        """Set columns of a row that no row of the source matches."""
        return self._add(NOT_MATCHED_BY_SOURCE, "update", predicate, updates)

    def when_not_matched_by_source_delete(self, predicate: str | None = None) -> TableMerger:
        """Delete a row that no row of the source matches."""
        return self._add(NOT_MATCHED_BY_SOURCE, "delete", predicate, {})

    def execute(self) -> dict[str, Any]:
        """Do it; what was done, under the names that the deltalake package uses.

        ConstraintViolationError when two rows of the source would change one row; nothing has changed then.
        """
        if not self._whens:
            raise QueryError("a merge needs at least one clause: when_matched_update_all(), for example")
        if self._tx is not None:
            with self._tx.statement():
                return self._run(self._tx)
        with self._lake.begin() as tx, tx.statement():
            if self._tell is not None:
                self._tell(tx)
            return self._run(tx)

    def _add(
        self, when: str, action: str, predicate: str | None, updates: Mapping[str, str] | None = None,
        but: Sequence[str] | None = None,
    ) -> TableMerger:  # fmt: skip
        condition = None if predicate is None else predicates.parse(predicate)
        excluded = frozenset(name.lower() for name in but or ())
        values = [(name, predicates.parse(value)) for name, value in (updates or {}).items()]
        self._whens.append(When(when, action, condition, values, updates is None, excluded))
        return self

    def _run(self, tx: Transaction) -> dict[str, Any]:
        start = time.perf_counter()
        columns = {n.lower() for n in rows.columns_of(tx, self._table)}
        whens = [replace(w, values=[(rows.named(str(c), columns), v) for c, v in w.values]) for w in self._whens]
        with from_items.kept_frame(self._lake, tx, self._source, self._source_alias) as item:
            change = rows.begin(tx, self._table, "MERGE", {})
            files = tx.files(change).num_rows
            effect, source_rows = merge.merge(
                self._lake, tx, self._table, self._target_alias, item, self._source_alias, self._on, whens,
                evolve=self._merge_schema, cast="exact" if self._exact else "try", caller=sql.caller_frame(),
            )  # fmt: skip
        return {
            "num_source_rows": source_rows,
            "num_target_rows_inserted": effect.inserted,
            "num_target_rows_updated": effect.updated,
            "num_target_rows_deleted": effect.deleted,
            "num_target_rows_copied": effect.copied,
            "num_output_rows": effect.inserted + effect.updated + effect.copied,
            "num_target_files_scanned": effect.files_scanned,
            "num_target_files_skipped_during_scan": files - effect.files_scanned,
            "num_target_files_added": effect.files_added,
            "num_target_files_removed": effect.files_removed,
            "execution_time_ms": _ms(start),
            "scan_time_ms": effect.scan_ms,
            "rewrite_time_ms": effect.rewrite_ms,
        }


def delete(tx: Transaction, table: str, predicate: str | None) -> dict[str, Any]:
    """Stage a DELETE; its metrics."""
    start = time.perf_counter()
    with tx.statement():
        effect = dml.delete(tx, table, predicate)
    return {
        "num_added_files": effect.files_added,
        "num_removed_files": effect.files_removed,
        "num_deleted_rows": effect.deleted,
        "num_copied_rows": effect.copied,
        "execution_time_ms": _ms(start),
        "scan_time_ms": effect.scan_ms,
        "rewrite_time_ms": effect.rewrite_ms,
    }


def update(
    tx: Transaction, table: str, updates: Mapping[str, str] | None, new_values: Mapping[str, Any] | None, predicate: str | None,
    *, exact: bool = True,
) -> dict[str, Any]:  # fmt: skip
    """Stage an UPDATE with expressions or with values; its metrics. exact: a value that does not fit is an error, else NULL."""
    start = time.perf_counter()
    if (updates is None) == (new_values is None):
        raise QueryError("update takes either updates (SQL expressions) or new_values (Python values)")
    expressions = {c: value_sql(v) for c, v in new_values.items()} if new_values is not None else updates or {}
    with tx.statement():
        if not exact and (change := tx.change(table)) is not None:
            expressions = {c: _tried(change.after.schema.get(c), sql) for c, sql in expressions.items()}
        effect = dml.update(tx, table, expressions, predicate)
    return {
        "num_added_files": effect.files_added,
        "num_removed_files": effect.files_removed,
        "num_updated_rows": effect.updated,
        "num_copied_rows": effect.copied,
        "execution_time_ms": _ms(start),
        "scan_time_ms": effect.scan_ms,
    }


def _tried(f: Field | None, expression: str) -> str:
    """SQL: the value of an expression in a column; NULL where it does not fit."""
    return (
        expression
        if f is None or rows.is_default(predicates.parse(expression))
        else f"TRY_CAST(({expression}) AS {to_duckdb(f.type)})"
    )


def _ms(start: float) -> int:
    return round((time.perf_counter() - start) * 1000)
