"""Is a lake whole? The catalog's invariants, what is derived from them, the files, and the mirror; and the repair of what can be
made again without a loss."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa

from deltaduck import row_views, scan, skip_index, storage
from deltaduck import snapshot as snapshots
from deltaduck.catalog import Catalog
from deltaduck.catalog.base import now_ms
from deltaduck.errors import DeltaduckError, LogCorruptError, MirrorError, StorageError
from deltaduck.listing import Listing
from deltaduck.operations.vacuum import find_orphans
from deltaduck.protocol.deletion_vectors import z85_decode
from deltaduck.protocol.schema import literal
from deltaduck.protocol.stats import SkipColumn
from deltaduck.protocol.widening import once_float
from deltaduck.snapshot import Snapshot

if TYPE_CHECKING:
    from deltaduck.lake import Lake

COLUMNS = ["table", "check", "level", "found", "version", "example", "meaning", "repaired", "way_out"]

_RESTORE = "restore the catalog from a backup, or import the table's _delta_log into a new lake"
_AGAIN = "--repair (repair=True) makes it again"

# check: (what it means, the way out). Those of `INVARIANTS` are statements of sql/core/fsck.sql, named fsck_<check>.
INVARIANTS = {
    "version_gap": ("commits are lost between two versions", _RESTORE),
    "commit_time": ("times do not rise with the version: AT (TIMESTAMP => ...) errs", "AT (VERSION => ...) is right"),
    "lost_commit": ("the newest commits are lost", _RESTORE),
    "definition": ("the table has no schema or no protocol", _RESTORE),
    "head": ("the row in dl_tables is not what the log says", _AGAIN),
    "action_of_no_commit": ("actions belong to no commit", _RESTORE),
    "commit_of_no_table": ("commits belong to no table", _RESTORE),
    "same_place": ("two actions have one place in a commit: the mirror cannot order them", _RESTORE),
    "interval": ("a file was removed before it was added", _RESTORE),
    "two_lives": ("a file is there twice: its rows are read twice", _RESTORE),
    "remove_without_end": ("a removed file still lives: rows are back that were deleted", _RESTORE),
    "end_without_remove": ("a file ended without a remove: other readers still see its rows", _RESTORE),
    "indexed": ("the skip index does not have a file where its add says: queries may miss rows", _AGAIN),
    "counts": ("sizes or counts of rows are impossible", "OPTIMIZE writes the files anew, with true ones"),
    "shared_location": ("two tables are at one place: VACUUM of one deletes the other's files", "drop one of the two"),
    "not_owed": ("commits will never be published", _AGAIN),
}
OTHERS = {
    "unreadable": ("the table cannot be read", _RESTORE),
    "missing_file": ("files of the present are missing", "put them back from a backup, or RESTORE a version without them"),
    "missing_past": ("files of past versions are missing", "put them back from a backup; the present is whole"),
    "other_size": ("files are not as long as the log says: cut, or replaced", "put them back from a backup"),
    "orphan": ("files that nothing refers to, or not yet: a write under way has some", "VACUUM ... FULL deletes the old ones"),
    "record_count": ("num_records is not what the statistics say", "OPTIMIZE writes the files anew, with true ones"),
    "skip_index": ("the skip index is not what the statistics say: queries may miss rows", _AGAIN),
    "row_view": ("plain DuckDB clients lack the table's view or macro, or see an old schema", _AGAIN),
    "mirror": (
        "the published log is not what the catalog says",
        f"{_AGAIN}; lake.mirror.verify says more, lake.mirror.adopt takes in what is somebody else's",
    ),
    "diverged": ("somebody else wrote a version to the _delta_log", "docs/operations.md, The mirror"),
}
NOTES = {"orphan"}  # nothing is wrong: no reason for an exit code


class Finding(NamedTuple):
    """Something that is not as it should be: how often, first in which version, for example where."""

    table: str
    check: str
    found: int
    version: int | None
    example: str | None


def fsck(lake: Lake, tables: Sequence[str] = (), *, repair: bool = False) -> Listing:
    """Look at tables of a lake, or at all of them; a row per table and check that found something.

    repair: make again what is derived and lost, and look once more: `repaired` says what is well then.
    """
    found = left = _look(lake, tables)
    for _ in range(2 if repair else 0):  # what cannot be read shows the rest of its damage only once it can
        for table in dict.fromkeys(f.table for f in left):
            _repair(lake, table, {f.check for f in left if f.table == table})
        if any(f.check in REPAIRS for f in left):
            left = _look(lake, tables)
            known = {(f.table, f.check) for f in found}
            found = found + [f for f in left if (f.table, f.check) not in known]
    remaining = {(f.table, f.check) for f in left}
    rows = []
    for f in found:
        meaning, way_out = (INVARIANTS | OTHERS)[f.check]
        repaired = (f.table, f.check) not in remaining
        level = "note" if f.check in NOTES else "error"
        rows.append((f.table, f.check, level, f.found, f.version, f.example, meaning, repaired, "" if repaired else way_out))
    return Listing(COLUMNS, rows)


def is_whole(found: Listing) -> bool:
    """Is there nothing left that is wrong?"""
    return all(row["repaired"] or row["level"] == "note" for row in found)


def _look(lake: Lake, tables: Sequence[str]) -> list[Finding]:
    catalog = lake.catalog
    catalog.definitions.clear()  # what is kept in memory is not what is asked for
    lake.mirror.flush()
    names: dict[int, str] = dict(catalog.rows("fsck_tables"))
    if tables:
        asked = {name.lower() for name in tables}
        if unknown := asked - {name.lower() for name in names.values()}:
            raise lake.not_found(next(name for name in tables if name.lower() in unknown))
        names = {i: name for i, name in names.items() if name.lower() in asked}
    found: list[Finding] = []
    with lake.at_one_point():
        for check in INVARIANTS:
            found += _broken(catalog, check, names, everywhere=not tables)
    views = _views(catalog)
    for name in names.values():
        try:
            found += [Finding(name, *rest) for rest in _table(lake, lake.snapshot(name), views)]
        except DeltaduckError as e:
            found.append(Finding(name, "unreadable", 1, None, str(e)))
    return found


def _broken(catalog: Catalog, check: str, names: dict[int, str], *, everywhere: bool) -> Iterator[Finding]:
    ids = ", ".join(str(int(i)) for i in names) or "NULL"
    scope = "table_id NOT IN (SELECT table_id FROM dl_tables WHERE dropped_ms <> 0)" if everywhere else f"table_id IN ({ids})"
    query = (
        f"SELECT table_id, count(*), min(version), min(subject) FROM ({catalog.sql(f'fsck_{check}')}\n) f "
        f"WHERE {scope} GROUP BY table_id ORDER BY table_id"
    )
    for table_id, count, version, subject in catalog.fetch(query):
        yield Finding(names.get(table_id, f"#{table_id}"), check, count, version, subject)


Found = tuple[str, int, int | None, str | None]  # a finding, but for the table


def _table(lake: Lake, snapshot: Snapshot, views: dict[str, list[str]]) -> Iterator[Found]:
    """What a table's derived things, files and published log say."""
    engine = lake.con.cursor()
    yield from _index(lake.catalog, engine, snapshot)
    yield from _files(lake, engine, snapshot)
    if lake.catalog.database == "duckdb" and snapshot.schema.fields:
        yield from _lacking(views, snapshot)
    verdict = lake.mirror.verify(snapshot.name)
    if diverged := [p for p in verdict.problems if p.endswith("DIVERGED")]:
        yield "diverged", len(diverged), None, diverged[0]
    if others := [p for p in verdict.problems if not p.endswith("DIVERGED")]:
        yield "mirror", len(others), None, others[0]


def _index(catalog: Catalog, engine: Any, snapshot: Snapshot) -> Iterator[Found]:
    """The skip index beside one that is derived anew: it may know less than the statistics, and never something else."""
    table = f"dl_skip_{snapshot.table_id}"
    if not catalog.has_table(table):
        yield "skip_index", 1, None, f"{table} is missing"
        return
    floats = frozenset(once_float(snapshot.schema))  # held as the floats that they were, derived with room for that
    columns = [c for c in snapshots.skip_columns(catalog, snapshot) if c.path not in floats]
    held = set(catalog.fetch_arrow(f"SELECT * FROM {table} LIMIT 0").column_names)
    if lacking := {"version", "action_order", *skip_index.names(columns)} - held:
        yield "skip_index", len(lacking), None, f"{table} has no column {min(lacking)}"
        return
    values = ", ".join(["version", "action_order", *skip_index.names(columns)])
    adds = skip_index.sources(catalog, snapshot.table_id)
    wanted = skip_index.derive(engine, adds, columns, snapshot.schema)
    shown = {
        "dl_index_wanted": wanted,
        "dl_index_held": _typed(catalog.fetch_arrow(f"SELECT {values} FROM {table}"), wanted.schema),
        "dl_index_adds": adds.select(["version", "action_order", "num_records"]),
    }
    differs = " OR ".join(_differs(c) for c in columns) or "FALSE"
    keys = "h.version = w.version AND h.action_order = w.action_order"
    index = f"""
        SELECT coalesce(h.version, w.version) AS version FROM dl_index_wanted w FULL JOIN dl_index_held h ON {keys}
        WHERE h.version IS NULL OR w.version IS NULL OR h.num_records <> w.num_records OR {differs}
        UNION ALL SELECT version FROM dl_index_held GROUP BY version, action_order HAVING count(*) > 1
    """
    once = "SELECT DISTINCT version, action_order, num_records FROM"  # many adds may stand at one place
    counts = (
        f"SELECT h.version FROM ({once} dl_index_wanted) w JOIN ({once} dl_index_adds) h ON {keys} "
        "WHERE w.num_records <> h.num_records"
    )
    for check, query in (("skip_index", index), ("record_count", counts)):
        ((count, first),) = _asked(engine, shown, f"SELECT count(*), min(version) FROM ({query})")
        if count:
            yield check, count, first, None


def _typed(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Rows whose empty columns have the types that they should have: SQLite says none."""
    fields = [schema.field(f.name) if rows[f.name].null_count == rows.num_rows else f for f in rows.schema]
    return rows.cast(pa.schema(fields))


def _differs(c: SkipColumn) -> str:
    """SQL: does the held row (h) of a column say more than the statistics (w)? Wider bounds and unknown ones prune less."""
    if c.is_partition:
        return f"h.{c.value} IS DISTINCT FROM w.{c.value}"
    unlike = ((c.min, ">"), (c.max, "<"), (c.nulls, "<>"))
    return " OR ".join(f"(h.{name} IS NOT NULL AND (w.{name} IS NULL OR h.{name} {sign} w.{name}))" for name, sign in unlike)


def _asked(engine: Any, shown: dict[str, pa.Table], query: str) -> list[Any]:
    for name, rows in shown.items():
        engine.register(name, rows)
    try:
        return list(engine.execute(query).fetchall())
    finally:
        for name in shown:
            engine.unregister(name)


def _files(lake: Lake, engine: Any, snapshot: Snapshot) -> Iterator[Found]:
    """What versions need beside what is in storage: one listing for the table, one for each directory elsewhere."""
    needed = {"dl_files_needed": _needed(lake.catalog, engine, snapshot)}
    listing = storage.list_files(snapshot.location)
    inside = f"{snapshot.location}/"
    places = _asked(
        engine, needed, f"SELECT DISTINCT regexp_replace(name, '/[^/]*$', '') FROM dl_files_needed "
        f"WHERE NOT starts_with(name, {literal(inside)})",
    )  # fmt: skip
    known = {inside + path: size for path, (size, _) in listing.items()}
    for (place,) in places:
        root = storage.normalize(place, lake.catalog.access)
        known |= {f"{root}/{path}": size for path, (size, _) in storage.list_files(root).items()}
    found = {"name": pa.array(known.keys(), pa.string()), "size": pa.array(known.values(), pa.int64())}
    compared = _asked(
        engine, needed | {"dl_files_found": pa.table(found)},
        """SELECT CASE WHEN f.name IS NOT NULL THEN 'other_size' WHEN n.live = 1 THEN 'missing_file' ELSE 'missing_past' END AS c,
                  count(*), min(n.version), min(n.name)
           FROM dl_files_needed n LEFT JOIN dl_files_found f USING (name)
           WHERE f.name IS NULL OR f.size <> n.size GROUP BY c ORDER BY c""",
    )  # fmt: skip
    yield from compared
    if orphans := find_orphans(lake, snapshot, now_ms(), (), listing):
        yield "orphan", len(orphans), None, min(orphans)


def _needed(catalog: Catalog, engine: Any, snapshot: Snapshot) -> pa.Table:
    """name (absolute), size, version and live of every file that a version needs, deletion vectors' among them."""
    files = catalog.arrow("fsck_files", table_id=snapshot.table_id)
    vectors = catalog.arrow("fsck_vectors", table_id=snapshot.table_id)
    vectors = vectors.append_column("uuid", _uuids(vectors["id"], snapshot.name))
    top = literal(f"{snapshot.location}/")
    query = f"""
        SELECT {scan.full_path("path", snapshot.location)} AS name, CAST(size AS BIGINT) AS size, version, live FROM dl_needed
        UNION ALL
        SELECT {top} || CASE WHEN directory = '' THEN '' ELSE directory || '/' END || 'deletion_vector_'
               || CAST(CAST(hex(uuid) AS UUID) AS VARCHAR) || '.bin', NULL, version, live FROM dl_needed_vectors
    """
    for name, rows in (("dl_needed", files), ("dl_needed_vectors", vectors)):
        engine.register(name, rows)
    try:
        return engine.sql(query).to_arrow_table()
    finally:
        engine.unregister("dl_needed")
        engine.unregister("dl_needed_vectors")


def _uuids(encoded: pa.ChunkedArray, table: str) -> pa.Array:
    """The names of deletion vectors' files, decoded all at once."""
    data = z85_decode("".join(encoded.to_pylist()))
    if len(data) != 16 * len(encoded):
        raise LogCorruptError(f"table {table!r}: the file of a deletion vector has a name that cannot be read")
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(encoded), [None, pa.py_buffer(data)])


def _views(catalog: Catalog) -> dict[str, list[str]]:
    """The columns of every view, and nothing for every macro, that plain clients of a DuckDB catalog have."""
    if catalog.database != "duckdb":
        return {}
    columns = "SELECT table_name, list(column_name ORDER BY column_index) FROM duckdb_columns() WHERE NOT internal GROUP BY ALL"
    macros = "SELECT DISTINCT function_name, [] FROM duckdb_functions() WHERE function_type = 'table_macro' AND NOT internal"
    return dict(catalog.fetch(f"{columns} UNION ALL {macros}"))


def _lacking(views: dict[str, list[str]], snapshot: Snapshot) -> Iterator[Found]:
    macro = f"{snapshot.name}_at"
    if views.get(snapshot.name) != snapshot.schema.names:
        yield "row_view", 1, None, f"view {snapshot.name}"
    elif macro not in views:
        yield "row_view", 1, None, f"macro {macro}"


# --- repairs: of what is derived, from what it is derived from


def _set_head(lake: Lake, table: str) -> None:
    with lake.catalog.transaction():
        row = lake.catalog.head(table)
        assert row is not None
        lake.catalog.rows("table_state", table_id=row[0])  # locks it
        lake.catalog.run("fsck_set_head", table_id=row[0])
    lake.catalog.definitions.clear()
    lake.catalog.scans.clear()


def _rebuild_index(lake: Lake, table: str) -> None:
    skip_index.rebuild(lake.catalog, lake.con.cursor(), lake.snapshot(table))


def _publish_views(lake: Lake, table: str) -> None:
    snapshot = lake.snapshot(table)
    with lake.catalog.transaction():
        row_views.publish(lake.catalog, snapshot, snapshot.table_id, has_files=snapshot.has_files)


def _publish(lake: Lake, table: str) -> None:
    snapshot = lake.snapshot(table)
    with lake.catalog.transaction():
        lake.catalog.run("fsck_owe", table_id=snapshot.table_id)
    with contextlib.suppress(MirrorError, StorageError):  # the second look says what is left
        lake.mirror.verify(table, repair=True)


REPAIRS: dict[str, Callable[[Lake, str], None]] = {
    "head": _set_head,
    "indexed": _rebuild_index,
    "skip_index": _rebuild_index,
    "row_view": _publish_views,
    "not_owed": _publish,
    "mirror": _publish,
}
HOPELESS = {"version_gap", "lost_commit", "definition", "commit_of_no_table"}  # making something again would hide it


def _repair(lake: Lake, table: str, checks: set[str]) -> None:
    if not checks & HOPELESS:
        for repair in dict.fromkeys(repair for check, repair in REPAIRS.items() if check in checks):
            repair(lake, table)
