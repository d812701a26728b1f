"""Which rows of a table change, and into what: DELETE, UPDATE and MERGE are one search with different clauses.

One scan joins the files that can match with the source, and leaves a temporary table: for every row that goes, its
place (file and position); for every row that comes, its values. How the places are taken out is `rewrite`'s business.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deltaduck import identity, many_files, parquet, scan
from deltaduck.catalog import Catalog
from deltaduck.changes import Change
from deltaduck.errors import ConstraintViolationError, SchemaMismatchError
from deltaduck.operations import marking, rewrite
from deltaduck.predicate import Condition
from deltaduck.protocol.features import check_writable
from deltaduck.protocol.schema import Field, Struct, quote, to_duckdb
from deltaduck.rules import IDENTITY

if TYPE_CHECKING:
    from deltaduck.transaction import Transaction

MATCHED, NOT_MATCHED, NOT_MATCHED_BY_SOURCE = "MATCHED", "NOT MATCHED", "NOT MATCHED BY SOURCE"
HELD = 128 << 20  # bytes of changed rows in memory; more go into a temporary table, which DuckDB can spill
BATCH = 32_768  # rows between two looks at how much memory they take
NOWHERE = "CAST(NULL AS BIGINT)"  # the place of a row that the table does not have yet, and its id
NEW = -1  # the same among numbers
# So few, a source and what matches it are kept while pairs are found: a sixth less work than a RIGHT JOIN, which carries all
# columns of both sides. For more it takes longer, and more memory.
FEW_SOURCE_ROWS, FEW_TARGET_ROWS = 1 << 18, 1 << 21
COMES = ("update", "insert")  # actions after which there is a row
_names = (f"dl_changes_{n}" for n in itertools.count())


@dataclass(frozen=True)
class Clause:
    """What happens to a row: the first clause of its kind (`when`) whose condition holds decides.

    action: "update", "delete", "insert" or "nothing"; values: SQL of the columns that it sets, over target and source.
    """

    when: str
    action: str
    condition: str | None = None
    values: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Search:
    """The rows that a statement looks at.

    target: what the expressions call the table. on: SQL that a pair of rows, or a row when there is no source, must meet.
    source: a FROM item. source_name: what the expressions of a MERGE call all that it gives; source_rows: how many rows that are.
    condition: the files that can match.
    repeats: what it means that several source rows change one row: "error", "same" (an error unless all agree), "one".
    """

    target: str
    on: str | None
    condition: Condition
    source: str | None = None
    source_name: str = ""
    source_rows: int = 0
    repeats: str = "error"
    connection: Any = None  # where temporary tables and frames that the expressions name are


@dataclass
class Effect:
    """What a statement did, in rows, files and milliseconds."""

    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    copied: int = 0
    files_scanned: int = 0
    files_added: int = 0
    files_removed: int = 0
    scan_ms: int = 0
    rewrite_ms: int = 0

    @property
    def rows(self) -> int:
        return self.inserted + self.updated + self.deleted


@dataclass(frozen=True)
class Changes:
    """What a search has found, in memory (`held`) where it is little.

    Its columns: place, the row's place (NULL for a row that is new); clause; c0, c1, … with the values of the schema where rows
    may come; and where the table tracks rows row_id."""

    connection: Any
    name: str
    held: pa.Table | None

    @cached_property
    def table(self) -> str:
        """What the connection knows them as."""
        if self.held is not None:  # a thread takes a batch; one that is a row group is written as it is
            size = parquet.row_group(self.held.num_rows, self.threads)
            self.connection.register(self.name, pa.Table.from_batches(self.held.to_batches(size), self.held.schema))
        return self.name

    @cached_property
    def threads(self) -> int:
        return many_files.threads(self.connection)

    @cached_property
    def sorted_places(self) -> Any:
        """The places of all rows that go, rising."""
        rows = self.held
        if rows is None:
            rows = self.connection.sql(f"SELECT place FROM {self.table} WHERE place IS NOT NULL").to_arrow_table()
        return np.sort(pc.drop_null(rows["place"]).to_numpy())  # several times as fast as what numpy.unique does

    def release(self) -> None:
        if self.held is None:
            self.connection.execute(f"DROP TABLE {self.name}")
        elif "table" in self.__dict__:
            self.connection.unregister(self.name)


@dataclass(frozen=True)
class Found:
    """The changes of a search, and how many.

    files: those searched, by whose order a place counts. touched: (index of a file, rows of it that go).
    new_rows: how many rows come; comes: SQL that is true for them. given: columns that some clause sets, in lower case.
    """

    changes: Changes
    files: pa.Table
    touched: Sequence[tuple[int, int]]
    new_rows: int
    comes: str
    given: frozenset[str]

    @property
    def connection(self) -> Any:
        return self.changes.connection

    @property
    def table(self) -> str:
        return self.changes.table

    def places(self) -> Any:
        """The places of all rows that go, rising, each once."""
        numbers = self.changes.sorted_places
        return numbers[np.diff(numbers, prepend=-1) != 0]


def delete_rows(tx: Transaction, change: Change, predicate: str | None) -> Effect:
    """Stage the deletion of the rows that match (of all rows, without a predicate)."""
    condition = tx.condition(change, predicate)
    return change_rows(tx, change, Search(change.name, tx.planned(predicate), condition), [Clause(MATCHED, "delete")])


def change_rows(tx: Transaction, change: Change, search: Search, clauses: Sequence[Clause]) -> Effect:
    """Stage what the clauses say of the rows that the search finds."""
    check_writable(change.after.protocol, change.name)
    start = time.perf_counter()
    (change.searches if _changes_all_that_matters(search, clauses) else change.reads).append(search.condition)
    files = tx.files(change, search.condition)
    effect = Effect(files_scanned=files.num_rows)
    if search.source is None and not files.num_rows:
        _projection(change.after.schema, clauses)  # what is wrong with the statement is wrong with no rows too
        return effect
    if search.on is None and search.source is None and clauses[0].action == "delete":
        rewrite.remove_all(tx, change, files, effect)
        return effect
    with _changes(tx.lake.catalog, search.connection or tx.lake.con.cursor(), change, search, clauses, files, effect) as found:
        effect.scan_ms = _ms(start)
        rewrite.replace(tx, change, found, effect)
    effect.rewrite_ms = _ms(start) - effect.scan_ms
    return effect


def _changes_all_that_matters(search: Search, clauses: Sequence[Clause]) -> bool:
    """Would the statement do the same if rows of the table that it does not change had not been there?

    A row that is inserted because nothing matched is the exception, unless all that matches changes."""
    if search.source is None or all(c.when != NOT_MATCHED for c in clauses):
        return True
    matched = [c for c in clauses if c.when == MATCHED]
    return any(c.condition is None for c in matched) and all(c.action != "nothing" for c in matched)


def _ms(start: float) -> int:
    return round((time.perf_counter() - start) * 1000)


@contextmanager
def _changes(
    catalog: Catalog, con: Any, change: Change, search: Search, clauses: Sequence[Clause], files: pa.Table, effect: Effect
) -> Iterator[Found]:
    table = next(_names)
    query = _query(con, change, search, clauses, files)
    try:
        if search.source is None and not any(c.action in COMES for c in clauses) and _are_few(search, files):
            held = pa.table(con.execute(query).fetchnumpy())  # numbers, one row each: not planned twice, as a relation is
        elif search.repeats == "same" or any(IDENTITY in f.metadata for f in change.after.schema):
            held = None
        else:
            held = _held(con, query)
        if held is None:
            con.execute(f"CREATE TEMP TABLE {table} AS {query}")
        changes = Changes(con, table, held)
        try:
            _check_repeats(change, search, changes, files)
            _number(catalog, change, changes, clauses)
            yield _found(changes, clauses, files, effect, search.source is not None and search.repeats == "one")
        finally:
            changes.release()
    except duckdb.Error as e:
        raise parquet.translate(e, change.after.location) from e


def _held(con: Any, query: str) -> pa.Table | None:
    """The rows of a query in memory, where they are few: a temporary table costs several times that. None otherwise, and where
    the query fails, which who runs it next hears as an error of DuckDB's own."""
    batches, size = [], 0
    try:
        with con.sql(query).to_arrow_reader(BATCH) as reader:
            for batch in reader:
                batches.append(batch)
                size += batch.nbytes
                if size > HELD:
                    return None
            return pa.Table.from_batches(batches, reader.schema)
    except (pa.ArrowException, OSError):
        return None


def _query(con: Any, change: Change, search: Search, clauses: Sequence[Clause], files: pa.Table) -> str:
    """Every row that changes: place, clause, new values."""
    schema, on, source = change.after.schema, search.on or "true", search.source
    more, stored = scan.identity_sql(change.after, files)
    rows = scan.scan_sql(con, change.after, files, f"file_index AS dl_file, file_row_number AS dl_row{more}", stored=stored)
    mine, theirs = quote(search.target), quote(search.source_name)
    target = f"({rows}) AS {mine}"
    comes = any(c.action in COMES for c in clauses)
    values = _projection(schema, clauses, search.target)
    columns = ["place", "clause", *(f"c{i}" for i in range(len(values) if comes else 0)), *(["row_id"] if more else [])]
    names, known = ", ".join(columns), "WHERE clause IS NOT NULL"

    def found(tests: Mapping[str, str], from_sql: str, *, new: bool = False, also: str = "") -> str:
        """What the clauses of the kinds in `tests` make of the rows of a FROM item, `new` ones or the table's. The columns have
        no names here, so that no expression can mean one of them; a row's place is worked out when it is known to change."""
        own = [n for n, c in enumerate(clauses) if c.when in tests]
        conditions = [tests[c.when] + (f" AND ({c.condition})" if c.condition else "") for c in map(clauses.__getitem__, own)]
        made = [NOWHERE if new else place(f"{mine}.dl_file", f"{mine}.dl_row")]
        made.append(_case(conditions, [str(n) if clauses[n].action != "nothing" else "NULL" for n in own]))
        if comes:
            made += [_case(conditions, [sql[n] for n in own], to_duckdb(f.type)) for f, sql in zip(schema, values, strict=True)]
        if more:
            made.append(NOWHERE if new else f"{mine}.dl_row_id")
        return f"SELECT {', '.join(made)}{also} FROM {from_sql}"

    match frozenset(c.when for c in clauses):
        case _ if source is None:
            query = found({MATCHED: "true"}, f"{target} WHERE {on}")
        case kinds if kinds == {MATCHED}:
            query = found({MATCHED: "true"}, f"{target}, {source} WHERE {on}")
        case kinds if kinds == {NOT_MATCHED}:
            query = found({NOT_MATCHED: "true"}, f"(SELECT * FROM {source}) AS {theirs} ANTI JOIN {target} ON ({on})", new=True)
        case kinds if kinds == {MATCHED, NOT_MATCHED} and _are_few(search, files):
            matched = found({MATCHED: "true"}, f"{target} JOIN dl_source AS {theirs} ON ({on})", also=f", {theirs}.dl_hit")
            others = f"dl_source AS {theirs} WHERE dl_hit NOT IN (SELECT dl_hit FROM dl_matched)"  # an ANTI JOIN would carry all
            return (
                f"WITH dl_source AS MATERIALIZED (SELECT *, row_number() OVER () AS dl_hit FROM {source}), "
                f"dl_matched({names}, dl_hit) AS MATERIALIZED ({matched}) SELECT {names} FROM dl_matched {known} "
                f"UNION ALL SELECT * FROM ({found({NOT_MATCHED: 'true'}, others, new=True)}) AS found({names}) {known}"
            )
        case kinds:
            join = "LEFT" if NOT_MATCHED not in kinds else "FULL" if NOT_MATCHED_BY_SOURCE in kinds else "RIGHT"
            tests = {
                MATCHED: f"{mine}.dl_row IS NOT NULL AND dl_hit IS NOT NULL",
                NOT_MATCHED: f"{mine}.dl_row IS NULL",
                NOT_MATCHED_BY_SOURCE: "dl_hit IS NULL",
            }
            marked = f"(SELECT *, true AS dl_hit FROM {source}) AS {theirs}"
            query = found(tests, f"{target} {join} JOIN {marked} ON ({on})")
    return f"SELECT * FROM ({query}) AS found({names}) {known}"


def _are_few(search: Search, files: pa.Table) -> bool:
    rows = files["num_records"]
    return search.source_rows <= FEW_SOURCE_ROWS and rows.null_count == 0 and (pc.sum(rows).as_py() or 0) <= FEW_TARGET_ROWS


def place(file: str = "file_index", row: str = "file_row_number") -> str:
    """SQL: a row's place, as one number; `rewrite` takes it apart."""
    return f"CAST({file} AS BIGINT) * {marking.FILE} + CAST({row} AS BIGINT)"


def _case(conditions: Sequence[str], values: Sequence[str], type_: str = "INTEGER") -> str:
    if all(v == "NULL" for v in values):
        return f"CAST(NULL AS {type_})"
    if conditions == ["true"]:
        return values[0]
    return f"CASE {' '.join(f'WHEN {c} THEN {v}' for c, v in zip(conditions, values, strict=True))} END"


def _projection(schema: Struct, clauses: Sequence[Clause], target: str = "") -> list[list[str]]:
    """For each column, what each clause puts there."""
    given = [{_column(schema, name).name: sql for name, sql in c.values.items()} for c in clauses]
    return [[_value(f, c, values, target) for c, values in zip(clauses, given, strict=True)] for f in schema]


def _column(schema: Struct, name: str) -> Field:
    f = schema.get(name)
    if f is None:
        raise SchemaMismatchError(f"the table has no column {name!r}; it has {', '.join(schema.names)}")
    return f


def _value(f: Field, clause: Clause, values: Mapping[str, str], target: str) -> str:
    if clause.action in ("delete", "nothing"):
        return "NULL"
    if f.name in values:
        return f"CAST(({values[f.name]}) AS {to_duckdb(f.type)})"
    if clause.action == "update":
        return f"{quote(target)}.{quote(f.name)}"
    if not f.nullable and IDENTITY not in f.metadata:
        raise SchemaMismatchError(f"column {f.name!r} is NOT NULL, and the INSERT gives it no value")
    return "NULL"


def _check_repeats(change: Change, search: Search, changes: Changes, files: pa.Table) -> None:
    """ConstraintViolationError when several rows of the source would change one row of the table."""
    con = changes.connection
    if search.source is None or search.repeats == "one":
        return
    repeated = _repeated(changes)
    if repeated is not None and search.repeats == "same":
        con.execute(f"CREATE OR REPLACE TEMP TABLE {changes.table} AS SELECT DISTINCT * FROM {changes.table}")
        repeated = _repeated(changes)
    if repeated is None:
        return
    source = scan.scan_sql(con, change.after, files, f"{place()} AS dl_at")
    rows = con.execute(f"SELECT * EXCLUDE (dl_at) FROM ({source}) WHERE dl_at = {repeated} LIMIT 1")
    names = [c[0] for c in rows.description]
    row = ", ".join(f"{n}={v!r}" for n, v in zip(names, rows.fetchall()[0], strict=True))
    row = row if len(row) <= 200 else f"{row[:200]} …"
    raise ConstraintViolationError(
        f"table {change.name!r}: several rows of the source match one row and would change it: ({row}). "
        "Let the source have one row per key, or make the condition stricter; nothing was changed"
    )


def _repeated(changes: Changes) -> int | None:
    """A place that was found more than once."""
    if changes.held is None:
        query = f"SELECT place FROM {changes.table} WHERE place IS NOT NULL GROUP BY place HAVING count(*) > 1 LIMIT 1"
        return next((place for (place,) in changes.connection.execute(query).fetchall()), None)
    places = changes.sorted_places
    again = np.flatnonzero(places[1:] == places[:-1])
    return int(places[again[0]]) if len(again) else None


def _number(catalog: Catalog, change: Change, changes: Changes, clauses: Sequence[Clause]) -> None:
    """Give rows that come without one a value of the identity columns."""
    for i, f in enumerate(change.after.schema):
        if IDENTITY not in f.metadata:
            continue
        con, table = changes.connection, changes.table
        without = [
            str(n) for n, c in enumerate(clauses) if c.action == "insert" and f.name.lower() not in map(str.lower, c.values)
        ]
        rows = f"SELECT rowid AS place, row_number() OVER () - 1 AS n FROM {table} WHERE clause IN ({', '.join(without)})"
        count = con.execute(f"SELECT count(*) FROM ({rows})").fetchall()[0][0] if without else 0
        if count:
            first, step = identity.take(catalog, change, f, count), f.metadata.get(identity.STEP, 1)
            con.execute(f"UPDATE {table} SET c{i} = {first} + {step} * new.n FROM ({rows}) new WHERE {table}.rowid = new.place")


def _found(changes: Changes, clauses: Sequence[Clause], files: pa.Table, effect: Effect, repeated: bool) -> Found:
    """Count what was found. repeated: may a row have been found more than once?"""
    touched: dict[int, int] = {}
    for file, clause, places, rows in _counted(changes, repeated):
        match clauses[clause].action:
            case "insert":
                effect.inserted += rows
            case "update":
                effect.updated += places
            case _:
                effect.deleted += places
        if file is not None:
            touched[file] = touched.get(file, 0) + places
    coming = [str(n) for n, c in enumerate(clauses) if c.action in COMES]
    comes = f"clause IN ({', '.join(coming)})" if coming else "false"
    given = frozenset(name.lower() for c in clauses for name in c.values)
    return Found(changes, files, sorted(touched.items()), effect.updated + effect.inserted, comes, given)


def _counted(changes: Changes, repeated: bool) -> list[tuple[int | None, int, int, int]]:
    """(file, clause, rows of the table, rows found)."""
    if changes.held is not None:
        return _counted_here(changes.held, repeated)
    count = "count(DISTINCT place)" if repeated else "count(place)"
    query = f"SELECT place // {marking.FILE} AS file, clause, {count}, count(*) FROM {changes.table} GROUP BY ALL"
    return changes.connection.execute(query).fetchall()  # type: ignore[no-any-return]


def _counted_here(rows: pa.Table, repeated: bool) -> list[tuple[int | None, int, int, int]]:
    """The same of rows in memory, where asking DuckDB takes most of the time."""
    place, clause = pc.fill_null(rows["place"], NEW).to_numpy(), rows["clause"].to_numpy()
    if repeated:  # then one clause takes all that the table has; each row that comes is one of its own
        place, first = np.unique(np.where(place == NEW, NEW - np.arange(len(place)), place), return_index=True)
        clause = clause[first]
    kinds = clause.max(initial=0) + 1
    counts = np.bincount((place // marking.FILE + 1) * kinds + clause)
    found = np.flatnonzero(counts)
    files, clauses = found // kinds - 1, found % kinds
    return [
        (None, clause, 0, rows) if file < 0 else (file, clause, rows, rows)
        for file, clause, rows in zip(files.tolist(), clauses.tolist(), counts[found].tolist(), strict=True)
    ]
