"""Views and macros that show a table's rows to any DuckDB client of a DuckDB catalog, without Python.

``FROM orders`` reads the live files, ``FROM orders_at(3)`` those of version 3, with the columns of today's schema.
Other catalogs have no such views: only DuckDB reads Parquet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from deltaduck import file_values, scan, storage
from deltaduck.catalog import Catalog
from deltaduck.protocol import mapping, partitions
from deltaduck.protocol.features import DELETION_VECTORS
from deltaduck.protocol.schema import literal, quote, uses
from deltaduck.snapshot import Snapshot

LIVE = "removed_version IS NULL"
AT = "version <= at_version AND (removed_version IS NULL OR removed_version > at_version)"

# Directories outside of the table's own where its files are: a shallow clone's.
FOREIGN = """
    SELECT DISTINCT regexp_replace(url_decode(regexp_replace(path, '^file:/*', '/')), '/[^/]*$', '') AS place
    FROM dl_add_files WHERE table_id = :table_id AND (path LIKE '/%' OR path LIKE 'file:/%') ORDER BY place
"""

# Some of the files that tell how others write timestamps: a footer is not asked of each.
NEWEST = """
    SELECT {place} FROM dl_add_files
    WHERE table_id = :table_id AND removed_version IS NULL ORDER BY version DESC, action_order DESC LIMIT 4
"""


def publish(catalog: Catalog, snapshot: Snapshot, table_id: int, *, has_files: bool) -> None:
    """(Re)create the view and the macro of a table; where a view would show other rows, ones that say why they show none."""
    if catalog.database != "duckdb" or not snapshot.schema.fields:
        return
    globs = [_escaped(place) + "/*.parquet" for (place,) in catalog.fetch(FOREIGN, {"table_id": table_id})]
    if has_files:  # a glob that matches nothing is an error
        globs.insert(0, _escaped(snapshot.location) + "/**/*.parquet")
    reason = _obstacle(catalog, snapshot, table_id, globs)
    instants = "timestamp" if reason else _instants(catalog, snapshot, table_id)
    for name, alive in ((f"VIEW {quote(snapshot.name)}", LIVE), (f"MACRO {quote(snapshot.name + '_at')}(at_version)", AT)):
        rows = _refusal(snapshot, reason) if reason else rows_sql(snapshot, table_id, alive, globs, instants)
        catalog.execute(f"CREATE OR REPLACE {name} AS {'TABLE ' if alive is AT else ''}{rows}")


def _obstacle(catalog: Catalog, snapshot: Snapshot, table_id: int, globs: Sequence[str]) -> str | None:
    """Why a plain DuckDB client cannot read a table by a view; None when it can."""
    if len(snapshot.schema.fields) == len(snapshot.partition_columns):
        return "it has partition columns only"
    if mapping.mode(snapshot.configuration) == "id":
        return "its columns are mapped by number"
    if uses(snapshot.schema, "variant"):
        return "it has variants"
    asked = snapshot.configuration.get(DELETION_VECTORS, "false").lower() == "true"
    if asked or catalog.rows("has_deletion_vectors", table_id=table_id)[0][0]:
        return "it takes rows out by deletion vectors"
    if (globs and storage.is_remote(snapshot.location)) or catalog.rows("has_remote_files", table_id=table_id)[0][0]:
        return "it has files on an object store, whose credentials are not in the catalog"
    for glob in globs:
        if not catalog.fetch(f"SELECT 1 FROM glob({literal(glob)}) LIMIT 1"):
            return f"there are no data files at {glob}"
    return None


def _instants(catalog: Catalog, snapshot: Snapshot, table_id: int) -> str:
    """As text, which files of both kinds give, where any has them without a zone: see `file_values.instants_in_files`."""
    query = NEWEST.format(place=scan.full_path("path", snapshot.location))
    files = [path for (path,) in catalog.fetch(query, {"table_id": table_id})]
    if not files:
        return "timestamp"
    listed = f"[{', '.join(map(literal, files))}]"
    found = file_values.instants_in_files(catalog.engine(), listed, snapshot.schema.without(snapshot.partition_columns))
    return "timestamp" if found == "timestamp" else "string"


def _refusal(snapshot: Snapshot, reason: str) -> str:
    text = f"table {snapshot.name!r} can be read by deltaduck, not by a view: {reason}"
    return scan.empty_sql(snapshot.schema).removesuffix(" WHERE false") + f" WHERE error({literal(text)}) IS NULL"


def is_taken(catalog: Catalog, name: str) -> bool:
    """Has somebody a table or view of that name in the catalog's file? A new table must not replace it."""
    if catalog.database != "duckdb":
        return False
    query = """SELECT 1 FROM duckdb_views() WHERE lower(view_name) = lower(:name) AND NOT internal AND NOT temporary
               UNION ALL
               SELECT 1 FROM duckdb_tables() WHERE lower(table_name) = lower(:name) AND NOT internal AND NOT temporary"""
    return bool(catalog.fetch(query, {"name": name}))


def drop(catalog: Catalog, name: str) -> None:
    if catalog.database == "duckdb":
        catalog.execute(f"DROP VIEW IF EXISTS {quote(name)}")
        catalog.execute(f"DROP MACRO TABLE IF EXISTS {quote(name + '_at')}")


def _escaped(place: str) -> str:
    """A directory's name, in a glob."""
    return place.replace("[", "[[]").replace("*", "[*]").replace("?", "[?]")


def rows_sql(snapshot: Snapshot, table_id: int, alive: str, globs: Sequence[str], instants: str = "timestamp") -> str:
    """A query of a table's rows over the catalog's own tables: DuckDB globs, and opens only the files that are asked for."""
    if not globs:
        return scan.empty_sql(snapshot.schema)
    glob = ", ".join(map(literal, globs))
    held = replace(snapshot, schema=file_values.held(snapshot.schema, instants))
    options = f"{scan.options(held.schema)}, filename='dl_filename', schema={scan.schema_map(held)}"
    values = [(i, f) for i, f in enumerate(snapshot.schema) if f.name in snapshot.partition_columns]
    live = ", ".join(
        [f"{scan.full_path('path', snapshot.location)} AS dl_path"]
        + [f"{partitions.deserialize(scan.partition_value(f.physical_name), f.type)} AS dl_value_{i}" for i, f in values]
    )
    columns = ", ".join(
        f"{f'l.dl_value_{i}' if (i, f) in values else _stored(snapshot, i, instants)} AS {quote(f.name)}"
        for i, f in enumerate(snapshot.schema)
    )
    return (
        f"SELECT {columns} FROM read_parquet([{glob}], {options}) r "
        f"JOIN (SELECT {live} FROM dl_add_files WHERE table_id = {table_id} AND {alive}) l "
        "ON r.dl_filename = l.dl_path"
    )


def _stored(snapshot: Snapshot, position: int, instants: str) -> str:
    """SQL: a column of the files, as the schema has it."""
    name = quote(scan.column_alias(snapshot.schema, position))
    return file_values.logical(f"r.{name}", snapshot.schema.fields[position].type, instants=instants)
