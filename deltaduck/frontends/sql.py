"""SQL text: reads become scans over the files that survive pruning, writes go to the write path."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any, Protocol

import duckdb
import pyarrow as pa
from sqlglot import exp
from sqlglot.errors import SqlglotError

from deltaduck import clustering, frames, predicate, scan, telemetry
from deltaduck.errors import (
    DeltaduckError,
    QueryError,
    StorageError,
    TableExistsError,
    TableNotFoundError,
    UnsupportedFeatureError,
)
from deltaduck.frames import Source
from deltaduck.frontends import definitions, grammar, references
from deltaduck.frontends.references import Reference
from deltaduck.operations import replace
from deltaduck.parquet import translate
from deltaduck.predicate import Condition
from deltaduck.protocol.schema import quote
from deltaduck.snapshot import Snapshot

if TYPE_CHECKING:
    from deltaduck.lake import Lake


FEW_FILES, MAX_SCANS = 1000, 100
CATALOG_NAME = re.compile(r"dl_[a-z0-9_]+", re.IGNORECASE)


class Reader(Protocol):
    """Where a statement reads from: the lake as committed, or a transaction's view of it."""

    def find(self, name: str, version: int | None = None, timestamp: Any = None) -> Snapshot | None:
        """The table; None when the lake has none of that name."""

    def visible(self, snapshot: Snapshot, condition: Condition | None = None) -> pa.Table:
        """Its files that `condition` keeps."""

    def compile(self, snapshot: Snapshot, where: exp.Expr | None, qualifiers: Sequence[str] = ()) -> Condition:
        """A predicate on it, as a condition on its skip index."""

    def at_one_point(self) -> Any:
        """A context in which all of this is asked of one point of the catalog."""


def plan(lake: Lake, reader: Reader, text: str, caller: FrameType | None) -> str:
    """`text` with every lake table replaced by a scan."""
    try:
        trees = references.parse(text)
    except SqlglotError:
        return text  # unknown grammar: DuckDB runs it on the catalog's own views, unpruned
    if len(trees) != 1 or isinstance(trees[0], exp.Command) or _defines(trees[0]):
        return text
    if isinstance(trees[0], exp.Describe | exp.Summarize) and isinstance(trees[0].this, exp.Table):
        verb = type(trees[0]).__name__.upper()
        return plan(lake, reader, f"{verb} SELECT * FROM {text[trees[0].this.parts[0].meta['start'] :]}", caller)
    with telemetry.span("plan"), reader.at_one_point():
        return _splice(lake, reader, text, trees[0], caller)


def plan_expression(lake: Lake, reader: Reader, text: str, caller: FrameType | None) -> str:
    """An expression with the tables of its subqueries replaced by scans. QueryError where it cannot be parsed."""
    if not predicate.has_query(predicate.parse(text)):
        return text
    return plan(lake, reader, f"SELECT {text}", caller)[len("SELECT ") :]


def _defines(tree: exp.Expr) -> bool:
    """Is it a view or macro, which must follow the tables it names instead of today's files?"""
    return isinstance(tree, exp.Create) and tree.args.get("kind") != "TABLE"


def _splice(lake: Lake, reader: Reader, text: str, tree: exp.Expr, caller: FrameType | None) -> str:
    seen: dict[str, Snapshot | None] = {}

    def lookup(name: str) -> Snapshot | None:
        if name not in seen:
            seen[name] = reader.find(name)
        return seen[name]

    def columns_of(name: str) -> set[str] | None:
        snapshot = lookup(name)
        return None if snapshot is None else {n.lower() for n in snapshot.schema.names}

    described = any(i.name.lower() == "_metadata" for i in tree.find_all(exp.Identifier))  # asks where its rows stand
    pieces: list[str] = []
    position = 0
    for reference in references.find(text, tree, columns_of):
        snapshot = _resolve(lake, reader, reference, lookup)
        if snapshot is not None:
            condition = reader.compile(snapshot, reference.condition(), [reference.qualifier])
            replacement = _scan(
                lake, reader, snapshot, condition, described=described and snapshot.schema.get("_metadata") is None
            )
        elif reader is not lake and reference.schema.lower() in ("", "main") and lake.find(reference.name) is not None:
            raise TableNotFoundError(
                f"table {reference.name!r} is not there for this transaction: it was dropped in it, or came later"
            )
        elif lake.catalog.database != "duckdb" and CATALOG_NAME.fullmatch(reference.name):
            rows = lake.catalog.fetch_arrow(f"SELECT * FROM {reference.name}")  # DuckDB sees only its own catalogs
            replacement = frames.open_frame(lake.con, rows).from_sql
        elif caller is not None and (frame := _local_frame(lake, reference, caller)) is not None:
            replacement = frame
        else:
            continue
        alias, end = "" if reference.has_alias else f" AS {quote(reference.name)}", reference.end
        if isinstance(tree, exp.Copy) and (target := target_of(tree)) is not None and target.name == reference.name:
            given = tree.this.expressions if isinstance(tree.this, exp.Schema) else []
            alias = ""
            if given:  # COPY t (a, b) TO
                replacement = f"(SELECT {frames.columns_sql([c.name for c in given])} FROM {replacement})"
                end = text.index(")", given[-1].meta["end"]) + 1
        pieces += [text[position : reference.start], replacement, alias]
        position = end
    return "".join([*pieces, text[position:]])


def _scan(lake: Lake, reader: Reader, snapshot: Snapshot, condition: Condition, *, described: bool) -> str:
    """The rows of a snapshot. A committed version never changes, so the text of a small one is kept for the next time."""
    s = snapshot
    key = (
        s.table_id,
        s.version,
        s.latest,
        s.commit_ms,  # an adopted commit takes a version's number from ours
        s.metadata_version,
        s.uniform_since,
        described,
        condition.sql,
        *condition.params.items(),
    )
    known = lake.catalog.scans if reader is lake else {}
    if (text := known.get(key)) is None:
        files = reader.visible(snapshot, condition)
        text = f"({(scan.metadata_sql if described else scan.scan_sql)(lake.con.cursor(), snapshot, files)})"
        if files.num_rows <= FEW_FILES:
            if len(known) >= MAX_SCANS:
                known.clear()
            known[key] = text
    return text


def _resolve(lake: Lake, reader: Reader, reference: Reference, lookup: Any) -> Snapshot | None:
    if reference.schema and reference.schema.lower() != "main":
        return None
    if reference.version is None and reference.timestamp is None:
        return lookup(reference.name)  # type: ignore[no-any-return]
    if lookup(reference.name) is None:
        raise lake.not_found(reference.name)
    if reference.version is not None:
        return reader.find(reference.name, version=int(_constant(lake, f"CAST({reference.version} AS BIGINT)")))
    micros = _constant(lake, f"epoch_us(CAST({reference.timestamp} AS TIMESTAMPTZ))")
    return reader.find(reference.name, timestamp=micros // 1000)


def _constant(lake: Lake, sql: str) -> Any:
    ((_, value),) = lake.evaluate([sql])
    if value is None:
        raise QueryError(f"AT needs a version or a time, not NULL: {sql}")
    return value


def _local_frame(lake: Lake, reference: Reference, caller: FrameType) -> str | None:
    """A frame in a Python variable of that name, as DuckDB's own client finds it."""
    frame: FrameType | None = None if reference.schema else caller
    while frame is not None:
        for scope in (frame.f_locals, frame.f_globals):
            if reference.name in scope and frames.is_frame(scope[reference.name]):
                if lake.has_native(reference.name):
                    return None
                return frames.open_frame(lake.con, frames.fetched(scope[reference.name])).from_sql
        frame = frame.f_back
    return None


def execute(lake: Lake, reader: Reader, text: str, caller: FrameType | None) -> Any:
    """Run a reading statement; the DuckDB relation of its rows, or None when it has none."""
    prefix = references.EXPLAIN.match(text)
    head, body = (text[: prefix.end()], text[prefix.end() :]) if prefix else ("", text)
    if prefix:
        _require_read(lake, body)
    planned = head + plan(lake, reader, body, caller)
    try:
        if _LISTS.search(text):
            lake.show_tables()
        try:
            return lake.con.sql(planned)
        except duckdb.CatalogException:  # perhaps a table of ours, in a place that was left to DuckDB
            lake.show_tables()
            return lake.con.sql(planned)
    except duckdb.CatalogException as e:
        raise unknown_name(lake, e) from e
    except duckdb.Error as e:
        raise _explained(lake, e) from e


def told(lake: Lake, counts: Mapping[str, Any] | None = None) -> Any:
    """What a statement answers that changes something: how much.

    On a cursor: DuckDB 2 runs nothing on `con` while a result of its is being read, and what is done is done."""
    row = ", ".join(f"{int(v)} AS {quote(k)}" for k, v in (counts or {}).items()) or "true AS ok"
    return lake.con.cursor().sql(f"SELECT {row}")


_LISTS = re.compile(r"^\s*(SHOW|DESCRIBE\s*;?\s*$)|\b(information_schema|duckdb_(tables|views|columns))\b", re.IGNORECASE)


def _require_read(lake: Lake, text: str) -> None:
    """EXPLAIN ANALYZE runs what it explains."""
    try:
        trees = references.parse(text)
    except SqlglotError:
        return
    if any(is_write(lake, tree) for tree in trees):
        raise UnsupportedFeatureError("EXPLAIN is for statements that read: writes are planned by the lake, not by DuckDB")


def unknown_name(lake: Lake, error: duckdb.Error) -> Exception:
    """DuckDB knows no table of that name: the error that names the lake's."""
    text = str(error)
    if "Table with name" in text and " does not exist" in text:
        return lake.not_found(text.split("Table with name ")[1].split(" does not exist", maxsplit=1)[0].strip("\"'"))
    return QueryError(text.strip())


_NO_FILE = re.compile(r'No files found that match the pattern "([^"]*)"')


_SPARKS_TIME = re.compile(r"\b(VERSION|TIMESTAMP)\s+AS\s+OF\b", re.IGNORECASE)


def _explained(lake: Lake, error: duckdb.Error) -> DeltaduckError:
    """What DuckDB's error means to who wrote the statement: a file that is not there may be his, or a table's."""
    missing = _NO_FILE.search(str(error))
    if missing and not any(place in missing[1] for _, _, _, place, *_ in lake.catalog.rows("list_tables")):
        return StorageError(f"there is no file {missing[1]}: the statement did nothing")
    if isinstance(error, duckdb.ParserException) and _SPARKS_TIME.search(str(error)):
        return QueryError(
            f"{str(error).splitlines()[0]}: a query names a version as DuckDB does, FROM t AT (VERSION => 3) or "
            "AT (TIMESTAMP => '2026-01-31 12:00')"
        )
    return translate(error, "the lake")


def caller_frame() -> FrameType | None:
    """The frame of the code outside this package that is running."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and str(frame.f_globals.get("__name__", "")).split(".")[0] == "deltaduck":
        frame = frame.f_back
    return frame


# --- statements that write

_CHANGES = exp.Insert | exp.Update | exp.Delete | exp.Merge | exp.Create | exp.Drop | exp.Alter | exp.TruncateTable | exp.Copy


def is_write(lake: Lake, tree: exp.Expr) -> bool:
    """Does the statement change a table of the lake? UnsupportedFeatureError when it would change the log, or says what is not
    heard."""
    if not isinstance(tree, _CHANGES) or (target := target_of(tree)) is None:
        return False
    if target.name.lower().startswith("dl_"):
        raise UnsupportedFeatureError(f"{target.name!r} is the catalog's own: commits change it, and SELECT reads it")
    if not references.is_own(lake.con, [part.name for part in target.parts[:-1]]):
        return False
    match tree:
        case exp.Create() if tree.args.get("kind") == "TABLE" and tree.find(exp.TemporaryProperty) is not None:
            if lake.find(target.name) is not None:
                raise TableExistsError(f"table {target.name!r} is one of the lake: give the temporary table another name")
            return False
        case exp.Create() | exp.Drop() | exp.Alter() if tree.args.get("kind") != "TABLE":
            return False
        case exp.Copy() if not tree.args.get("kind"):  # COPY ... TO
            return False
    if not isinstance(tree, exp.Create) and lake.has_native(target.name):
        return False
    grammar.require_heard(tree, target)
    return True


def write(lake: Lake, tx: Any, tree: exp.Expr, text: str, caller: FrameType | None) -> dict[str, int]:
    """Stage a statement that makes or drops tables; what it did."""
    match tree:
        case exp.Create():
            return _create(lake, tx, tree, caller)
        case exp.Drop():
            if not (tree.args.get("exists") and tx.find(name_of(tree)) is None):
                tx.drop_table(name_of(tree))
            return {}
    words = " ".join(text.split()[:2]).upper()
    raise UnsupportedFeatureError(f"{words} ... is not supported on lake tables in this form")


def target_of(tree: exp.Expr) -> exp.Table | None:
    """The table that a statement changes."""
    if isinstance(tree, exp.Delete) and not tree.this:
        raise QueryError(f"{tree.sql('duckdb')}: write DELETE FROM and the table")
    named = tree.args.get("tables") or tree.expressions if isinstance(tree, exp.Drop | exp.TruncateTable) else [tree.this]
    if len(named) > 1:
        raise UnsupportedFeatureError(f"{tree.sql('duckdb')}: name one table at a time")
    node = named[0] if named else None
    if isinstance(node, exp.Schema):
        node = node.this
    return node if isinstance(node, exp.Table) and isinstance(node.this, exp.Identifier) else None


def name_of(tree: exp.Expr) -> str:
    """Its name. QueryError when there is none."""
    target = target_of(tree)
    if target is None:
        raise QueryError(f"no table is named: {tree.sql('duckdb')}")
    return target.name


def rows(lake: Lake, query: str, *, named: bool = True) -> Source:
    """The rows of a planned query, to write. named: does every column need a name of its own?"""
    return _checked(lake, lambda text: frames.from_query(lake.con, text, named=named), query)  # type: ignore[no-any-return]


def _checked(lake: Lake, do: Callable[[str], Any], text: str) -> Any:
    try:
        return do(text)
    except duckdb.CatalogException as e:
        raise unknown_name(lake, e) from e
    except duckdb.Error as e:
        raise _explained(lake, e) from e


def relation(lake: Lake, query: str) -> Any:
    """The relation of a planned query."""
    return _checked(lake, lake.con.sql, query)


def run(lake: Lake, statement: str) -> Any:
    """Run a planned statement now; where its result is fetched from."""
    return _checked(lake, lake.con.execute, statement)


def _create(lake: Lake, tx: Any, tree: exp.Create, caller: FrameType | None) -> dict[str, int]:
    name = name_of(tree)
    found = tx.find(name) is not None
    if found and tree.args.get("exists"):
        return {}
    replaces = found and bool(tree.args.get("replace"))
    properties = tree.args.get("properties")
    parts = properties.find(exp.PartitionedByProperty) if properties else None
    partition_by = definitions.partitioning(parts) if parts else None
    cluster_by = definitions.clustering(tree)
    columns, properties, comment, location = definitions.definition(tree)
    if location is not None and (replaces or tree.expression is not None):
        raise UnsupportedFeatureError(f"CREATE TABLE {name}: LOCATION goes with a new table and a list of columns")
    source = None
    if tree.expression is not None:
        query = plan(lake, tx, references.render(tree.expression), caller)
        if columns.fields:
            raise UnsupportedFeatureError(f"CREATE TABLE {name}: AS SELECT says the types, so give the columns' names alone")
        source = _created_rows(lake, tree, query)
    elif (model := definitions.model(tree)) is not None:
        if (table := tx.find(model)) is None:
            raise lake.not_found(model)
        columns, properties = definitions.alike(table), {**table.configuration, **properties}
        partition_by = list(table.partition_columns) if partition_by is None else partition_by
    elif not isinstance(tree.this, exp.Schema):
        raise QueryError(f"CREATE TABLE {name} needs columns, LIKE a table or AS SELECT")
    if replaces:
        schema = columns if source is None else source.schema()
        replace.replace_table(tx, name, schema, partition_by or (), properties, comment, cluster_by)
        counts: dict[str, int] = {} if source is None else tx.write(name, source)
        replace.describe(tx.change(name), "" if source is None else " AS SELECT")
        return counts
    if source is None:
        tx.create_table(
            name, columns, partition_by=partition_by, configuration=properties, description=comment, location=location,
            cluster_by=cluster_by,
        )  # fmt: skip
        return {}
    counts = tx.write(name, source, mode="error", partition_by=partition_by, configuration=properties, description=comment)
    if cluster_by:
        tx.stage(clustering.clustered(tx.change(name), [tuple(c.split(".")) for c in cluster_by]))
    return counts


def _created_rows(lake: Lake, tree: exp.Create, query: str) -> Source:
    """The rows of CREATE TABLE name (columns) AS SELECT ... WITH [NO] DATA."""
    source = rows(lake, query, named=not isinstance(tree.this, exp.Schema))
    if isinstance(tree.this, exp.Schema):
        names = [column.name for column in tree.this.expressions]
        if len(names) != len(source.columns):
            raise QueryError(
                f"{tree.this.sql('duckdb')}: {len(names)} columns are named, and the rows have {len(source.columns)}"
            )
        query = f"SELECT * FROM ({query}) AS dl_rows({frames.columns_sql(names)})"
    if (data := tree.find(exp.WithDataProperty)) is not None and data.args.get("no"):
        query = f"SELECT * FROM ({query}) LIMIT 0"
    return rows(lake, query)
