"""Statements that change or maintain a table as a whole: ALTER TABLE, COMMENT ON, OPTIMIZE, ANALYZE, VACUUM, RESTORE, CLONE,
CONVERT."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from sqlglot import exp
from sqlglot.errors import SqlglotError

from deltaduck import rules
from deltaduck.errors import QueryError, UnsupportedFeatureError
from deltaduck.frontends import references, sql
from deltaduck.frontends.definitions import with_metadata
from deltaduck.frontends.words import Words
from deltaduck.operations import alter, clone, convert, optimize, restore, statistics, vacuum
from deltaduck.operations.create import field_of
from deltaduck.protocol.schema import Field, literal

if TYPE_CHECKING:
    from deltaduck.lake import Lake

Staged = Callable[[Any], Mapping[str, int] | None]  # what a statement does in a transaction, and its counts
VERBS = "ALTER|ANALYZE|COMMENT|CONVERT|CREATE|DESC|DESCRIBE|OPTIMIZE|RESTORE|VACUUM"
FIRST = re.compile(rf"\s*(?:--[^\n]*\n\s*)*({VERBS})\b", re.IGNORECASE)
OF_ROWS = ("PARTITION", "FOREIGN", "PRIMARY", "UNIQUE")  # what ADD may speak of that is no column
ACTIONS = ("ADD", "DROP", "ALTER", "CHANGE", "RENAME", "SET", "UNSET")
COLUMN_ENDS = ("NOT", "NULL", "DEFAULT", "COMMENT", "FIRST", "AFTER", "GENERATED", "AS", "PRIMARY", "UNIQUE", "CHECK")


def run(lake: Lake, text: str, tx: Any) -> Any:
    """Run a statement of this grammar: the relation that it answers, or None when the text is none of these, or is about
    something that is no table of the lake."""
    if not FIRST.match(text):
        return None
    words = Words(text)
    first = words.name().upper() if words.tokens else ""
    match first:
        case "ALTER" if words.take("TABLE"):
            missing_ok = words.take("IF", "EXISTS")
            *qualifiers, name = words.path()
            if not references.is_own(lake.con, qualifiers) or _is_native(lake, tx, name):
                return None
            if missing_ok and (tx or lake).find(name) is None:
                return sql.told(lake)
            return _stage(lake, tx, _alter(words, name))
        case "ANALYZE" if words.take("TABLE"):
            return _analyze(lake, tx, words)
        case "COMMENT" if words.take("ON"):
            return _comment(lake, tx, words)
        case "OPTIMIZE":
            return _optimize(lake, tx, words)
        case "VACUUM" if words.peek() not in ("", "ANALYZE"):
            return _vacuum(lake, tx, words)
        case "RESTORE":
            return _restore(lake, tx, words)
        case "CONVERT":
            return _convert(lake, tx, words)
        case "CREATE":
            return _clone(lake, tx, words)
        case "DESC" | "DESCRIBE" if words.peek() in ("HISTORY", "DETAIL"):
            return _describe(lake, words)
    return None


def _describe(lake: Lake, words: Words) -> Any:
    """DESCRIBE HISTORY and DESCRIBE DETAIL, as Spark has them: what is committed. A table may have such a name."""
    what = words.name().lower()
    if not words.peek():
        return None
    table = _table(words)
    words.end()
    if lake.find(table) is None:
        raise lake.not_found(table)
    return lake.sql(f"FROM dl_{what}({literal(table)})")


def _stage(lake: Lake, tx: Any, staged: Staged) -> Any:
    if tx is not None:
        return sql.told(lake, staged(tx))
    with lake.begin() as own:
        counts = staged(own)
    return sql.told(lake, counts)


def _table(words: Words) -> str:
    """The table's name: the lake is one schema, which may be called main."""
    path = words.path()
    if len(path) > 1 and path[-2].lower() != "main":
        raise words.error("a table of the lake, without a schema")
    return path[-1]


def _is_native(lake: Lake, tx: Any, name: str) -> bool:
    return (tx or lake).find(name) is None and bool(lake.has_native(name))


# --- ALTER TABLE, COMMENT ON


def _alter(words: Words, table: str) -> Staged:
    if words.take("CLUSTER", "BY"):
        return _cluster_by(words, table)
    action = words.name().upper()
    match action:
        case "ADD" if words.peek() in ("CONSTRAINT", "CHECK"):
            constraint = words.name() if words.take("CONSTRAINT") else None
            words.need("CHECK")
            text = words.enclosed()
            return _ended(words, table, lambda tx: alter.add_constraint(tx, table, constraint, text))
        case "ADD" if words.take("COLUMN") or words.take("COLUMNS") or words.peek().split(" ")[0] not in OF_ROWS:
            return _add_columns(words, table)
        case "DROP" if words.take("CONSTRAINT"):
            missing_ok = words.take("IF", "EXISTS")
            name = words.name()
            return _ended(words, table, lambda tx: alter.drop_constraint(tx, table, name, missing_ok=missing_ok))
        case "RENAME" if words.take("TO"):
            name = _table(words)
            words.end()
            return lambda tx: alter.rename(tx, table, name)
        case "RENAME":
            words.take("COLUMN")
            path = words.path()
            words.need("TO")
            name = words.name()
            return _ended(words, table, lambda tx: alter.rename_column(tx, table, path, name))
        case "DROP" if words.take("COLUMN") or words.take("COLUMNS") or words.peek() not in ("PARTITION", "PRIMARY", "FEATURE"):
            missing_ok = words.take("IF", "EXISTS")
            listed = words.take("(")
            paths = [words.path()]
            while _another(words, listed):
                paths.append(words.path())
            if listed:
                words.need(")")
            return _ended(words, table, lambda tx: alter.drop_columns(tx, table, paths, missing_ok=missing_ok))
        case "ALTER" | "CHANGE":
            words.take("COLUMN")
            return _ended(words, table, _column_change(words, table, words.path()))
        case "SET":
            words.take("TBLPROPERTIES")
            properties = _properties(words)
            return _ended(words, table, lambda tx: alter.set_properties(tx, table, properties))
        case "UNSET" | "RESET":
            words.take("TBLPROPERTIES")
            missing_ok = words.take("IF", "EXISTS")
            keys = list(_properties(words))
            return _ended(words, table, lambda tx: alter.unset_properties(tx, table, keys, missing_ok=missing_ok))
    words.at -= 1
    raise words.error("ADD, DROP, RENAME, ALTER COLUMN, CLUSTER BY, SET or UNSET")


def _ended(words: Words, table: str, staged: Staged) -> Staged:
    """The action, and those that follow behind a comma, as in PostgreSQL."""
    if not words.take(","):
        words.end()
        return staged
    rest = _alter(words, table)

    def both(tx: Any) -> None:
        staged(tx)
        rest(tx)

    return both


def _another(words: Words, listed: bool) -> bool:
    """Does another name follow, and not another action?"""
    at = words.at
    if words.take(",") and (listed or not any(words.take(action) for action in ACTIONS)):
        return True
    words.at = at
    return False


def _cluster_by(words: Words, table: str) -> Staged:
    columns: list[tuple[str, ...]] = []
    if not words.take("NONE"):
        words.need("(")
        columns.append(words.path())
        while words.take(","):
            columns.append(words.path())
        words.need(")")
    return _ended(words, table, lambda tx: alter.cluster_by(tx, table, columns))


def _add_columns(words: Words, table: str) -> Staged:
    missing_only = words.take("IF", "NOT", "EXISTS")
    listed = words.take("(")
    columns = [_new_column(words)]
    while _another(words, listed):
        columns.append(_new_column(words))
    if listed:
        words.need(")")
    return _ended(words, table, lambda tx: alter.add_columns(tx, table, columns, missing_only=missing_only))


def _new_column(words: Words) -> tuple[tuple[str, ...], Field, str | None]:
    *parents, name = words.path()
    f = field_of(name, _type(words.until(*COLUMN_ENDS)))
    place: str | None = None
    while True:
        if words.take("NOT", "NULL"):
            f = replace(f, nullable=False)
        elif words.take("NULL"):
            pass
        elif words.take("DEFAULT"):
            f = with_metadata(f, rules.DEFAULT, rules.to_log(words.until(*COLUMN_ENDS)))
        elif words.take("COMMENT"):
            f = with_metadata(f, "comment", words.string())
        elif words.take("FIRST"):
            place = "FIRST"
        elif words.take("AFTER"):
            place = words.name()
        else:
            return tuple(parents), f, place


def _type(text: str) -> str:
    """A type in DuckDB's words; Spark's ARRAY<...>, MAP<...> and STRUCT<...> are understood too."""
    if "<" not in text:
        return text
    try:
        return exp.DataType.build(text, dialect="databricks").sql("duckdb")
    except SqlglotError as e:
        raise QueryError(f"{text!r} is no type: {str(e).splitlines()[0]}") from e


def _column_change(words: Words, table: str, path: tuple[str, ...]) -> Staged:
    if words.take("SET", "NOT", "NULL"):
        return lambda tx: alter.set_not_null(tx, table, path, True)
    if words.take("DROP", "NOT", "NULL"):
        return lambda tx: alter.set_not_null(tx, table, path, False)
    if words.take("SET", "DEFAULT"):
        text = words.until()
        return lambda tx: alter.set_default(tx, table, path[0], text)
    if words.take("DROP", "DEFAULT"):
        return lambda tx: alter.set_default(tx, table, path[0], None)
    if words.take("COMMENT"):
        comment = words.string()
        return lambda tx: alter.change_column(tx, table, path, lambda f: with_metadata(f, "comment", comment))
    if words.take("TYPE") or words.take("SET", "DATA", "TYPE") or words.take("SET", "TYPE"):
        type_ = field_of(".".join(path), _type(words.until("USING", "COLLATE"))).type
        return lambda tx: alter.set_type(tx, table, path, type_)
    if words.take("FIRST"):
        return lambda tx: alter.move_column(tx, table, path, "FIRST")
    if words.take("AFTER"):
        place = words.name()
        return lambda tx: alter.move_column(tx, table, path, place)
    raise words.error("SET NOT NULL, DROP NOT NULL, SET DEFAULT, DROP DEFAULT, TYPE, COMMENT, FIRST or AFTER")


def _properties(words: Words) -> dict[str, str]:
    """(key [= value], ...); a key may be a text or a dotted name."""
    words.need("(")
    found = {}
    while not words.take(")"):
        key = ".".join(words.path())
        found[key] = words.constant() if words.take("=") else ""
        if not words.take(","):
            words.need(")")
            break
    return {k: v.lower() if v.upper() in ("TRUE", "FALSE") else v for k, v in found.items()}


def _comment(lake: Lake, tx: Any, words: Words) -> Any:
    what = words.name().upper()
    if what not in ("TABLE", "COLUMN"):
        return None
    path = words.path()
    if path[0].lower() == "main" and len(path) > 1:
        path = path[1:]
    if _is_native(lake, tx, path[0]):
        return None
    words.need("IS")
    text = None if words.take("NULL") else words.string()
    words.end()
    if what == "TABLE":
        return _stage(lake, tx, lambda tx: alter.set_description(tx, path[0], text))

    def edit(f: Field) -> Field:
        metadata = {k: v for k, v in f.metadata.items() if k != "comment"}
        return replace(f, metadata=metadata if text is None else {**metadata, "comment": text})

    return _stage(lake, tx, lambda tx: alter.change_column(tx, path[0], path[1:], edit))


# --- maintenance


def _optimize(lake: Lake, tx: Any, words: Words) -> Any:
    """OPTIMIZE t [FULL] [WHERE partitions] [ZORDER BY (columns)]"""
    words.take("TABLE")
    name = _table(words)
    full = words.take("FULL")
    where = words.until("ZORDER") if words.take("WHERE") else None
    columns = None
    if words.take("ZORDER"):
        words.need("BY")
        listed = words.take("(")
        columns = [".".join(words.path())]
        while words.take(","):
            columns.append(".".join(words.path()))
        if listed:
            words.need(")")
    words.end()
    if full and (where or columns):
        raise UnsupportedFeatureError("OPTIMIZE ... FULL is of all files, by the columns that the table is clustered by")
    if tx is not None:
        found = optimize.stage(tx, name, where, None, columns, full=full)
    elif full:
        found = optimize.cluster(lake, name, full=True)
    else:
        found = optimize.z_order(lake, name, columns, where) if columns else optimize.compact(lake, name, where)
    shown = {k: found[k] for k in ("numFilesAdded", "numFilesRemoved", "partitionsOptimized", "totalConsideredFiles")}
    return sql.told(lake, shown)


def _analyze(lake: Lake, tx: Any, words: Words) -> Any:
    """ANALYZE TABLE t COMPUTE DELTA STATISTICS"""
    name = _table(words)
    for word in ("COMPUTE", "DELTA", "STATISTICS"):
        words.need(word)
    words.end()
    return _stage(lake, tx, lambda tx: statistics.recompute(tx, name))


def _vacuum(lake: Lake, tx: Any, words: Words) -> Any:
    """VACUUM t [FULL | LITE] [RETAIN n HOURS] [DRY RUN]"""
    name = _table(words)
    if _is_native(lake, tx, name):
        return None
    if tx is not None:
        raise UnsupportedFeatureError("VACUUM deletes files, which no transaction can take back: run it with lake.sql")
    full = words.take("FULL")
    if not full:
        words.take("LITE")
    hours = None
    if words.take("RETAIN"):
        hours = words.number()
        words.need("HOURS")
    dry_run = words.take("DRY", "RUN")
    words.end()
    paths = vacuum.vacuum(lake, name, hours, dry_run=dry_run, full=full)
    if not dry_run:
        return sql.told(lake, {"files_deleted": len(paths)})
    con = lake.con.cursor()
    con.register("dl_vacuum_paths", pa.table({"path": pa.array(paths, pa.string())}))
    return con.sql("FROM dl_vacuum_paths")


def _restore(lake: Lake, tx: Any, words: Words) -> Any:
    """RESTORE [TABLE] t TO VERSION AS OF n | TIMESTAMP AS OF 'time'"""
    words.take("TABLE")
    name = _table(words)
    words.need("TO")
    version, timestamp = _point(words)
    words.end()
    target = version if version is not None else str(timestamp)
    return _stage(lake, tx, lambda tx: restore.restore(tx, name, target))


def _point(words: Words) -> tuple[int | None, str | None]:
    """[VERSION | TIMESTAMP] AS OF ..."""
    if words.take("VERSION", "AS", "OF"):
        return int(words.number()), None
    if words.take("TIMESTAMP", "AS", "OF"):
        return None, words.string()
    raise words.error("VERSION AS OF or TIMESTAMP AS OF")


def _clone(lake: Lake, tx: Any, words: Words) -> Any:
    """CREATE TABLE [IF NOT EXISTS] name SHALLOW CLONE source [VERSION AS OF n | TIMESTAMP AS OF 'time']"""
    if not words.take("TABLE"):
        return None
    missing_only = words.take("IF", "NOT", "EXISTS")
    if words.at + 2 >= len(words.tokens) or words.peek() in ("(", ")", ","):
        return None
    name = words.path()[-1]
    if words.take("DEEP", "CLONE") or words.take("CLONE"):
        raise UnsupportedFeatureError(f"a deep clone is a copy: CREATE TABLE {name} AS SELECT * FROM ...")
    if not words.take("SHALLOW", "CLONE"):
        return None
    source = _table(words)
    version, timestamp = _point(words) if words.peek() else (None, None)
    words.end()
    if missing_only and (tx or lake).find(name) is not None:
        return sql.told(lake)
    return _stage(lake, tx, lambda tx: clone.shallow_clone(tx, name, source, version, timestamp))


def _convert(lake: Lake, tx: Any, words: Words) -> Any:
    """CONVERT TO DELTA parquet.`directory` | 'directory' [PARTITIONED BY (column type, ...)] [AS name]"""
    words.need("TO", "DELTA")
    if words.take("PARQUET"):
        words.need(".")
    directory = words.string()
    parts: dict[str, str] | None = None
    if words.take("NO", "STATISTICS"):
        pass
    if words.take("PARTITIONED", "BY"):
        words.need("(")
        parts = {}
        while not words.take(")"):
            column = words.name()
            parts[column] = _type(words.until())
            words.take(",")
    name = words.name() if words.take("AS") else None
    words.end()
    return _stage(lake, tx, lambda tx: convert.convert(tx, directory, name, partition_by=parts))
