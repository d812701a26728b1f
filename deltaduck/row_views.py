"""Views and macros that show a table's rows to any DuckDB client of a DuckDB catalog, without Python.

``FROM orders`` reads the live files, ``FROM orders_at(3)`` those of version 3, with the columns of today's schema.
Other catalogs have no such views: only DuckDB reads Parquet.
"""

from __future__ import annotations

from collections.abc import Sequence

from deltaduck import scan, storage
from deltaduck.catalog import Catalog
from deltaduck.protocol import partitions
from deltaduck.protocol.features import DELETION_VECTORS
from deltaduck.protocol.schema import literal, quote
from deltaduck.snapshot import Snapshot

ON_STORE = "its files are on an object store, whose credentials are not in the catalog"
LIVE = "removed_version IS NULL"
AT = "version <= at_version AND (removed_version IS NULL OR removed_version > at_version)"

# Directories outside of the table's own where its files are: a shallow clone's.
FOREIGN = """
    SELECT DISTINCT regexp_replace(url_decode(regexp_replace(path, '^file:/*', '/')), '/[^/]*$', '') AS place
    FROM dl_add_files WHERE table_id = :table_id AND (path LIKE '/%' OR path LIKE 'file:/%') ORDER BY place
"""


def publish(catalog: Catalog, snapshot: Snapshot, table_id: int, *, has_files: bool) -> None:
    """(Re)create the view and the macro of a table."""
    if catalog.database != "duckdb" or not snapshot.schema.fields:
        return
    if snapshot.configuration.get(DELETION_VECTORS, "false").lower() == "true":
        refuse(catalog, snapshot, "it takes rows out by deletion vectors")
        return
    if has_files and storage.is_remote(snapshot.location):
        refuse(catalog, snapshot, ON_STORE)
        return
    view, macro = quote(snapshot.name), quote(snapshot.name + "_at")
    globs = [_escaped(place) + "/*.parquet" for (place,) in catalog.fetch(FOREIGN, {"table_id": table_id})]
    catalog.execute(f"CREATE OR REPLACE VIEW {view} AS {rows_sql(snapshot, table_id, LIVE, has_files, globs)}")
    catalog.execute(f"CREATE OR REPLACE MACRO {macro}(at_version) AS TABLE {rows_sql(snapshot, table_id, AT, has_files, globs)}")


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


def obstacle(catalog: Catalog, snapshot: Snapshot, table_id: int) -> str | None:
    """Why a plain DuckDB client cannot read an imported table by a view; None when it can."""
    if catalog.database != "duckdb" or not snapshot.schema.fields:
        return None
    if len(snapshot.schema.fields) == len(snapshot.partition_columns):
        return "it has partition columns only"
    if storage.is_remote(snapshot.location):
        return ON_STORE
    if snapshot.is_mapped:
        return "its columns are mapped"
    if any(vectors for (vectors,) in catalog.rows("has_deletion_vectors", table_id=table_id)):
        return "it has deletion vectors"
    if catalog.rows("files_elsewhere", table_id=table_id)[0][0] or not catalog.fetch(
        f"SELECT 1 FROM glob({_glob(snapshot)}) LIMIT 1"
    ):
        return f"not all of its data files are below {snapshot.location}"
    return None


def refuse(catalog: Catalog, snapshot: Snapshot, reason: str) -> None:
    """A view and a macro that say why they have no rows to show."""
    if catalog.database == "duckdb":
        text = f"table {snapshot.name!r} can be read by deltaduck, not by a view: {reason}"
        rows = scan.empty_sql(snapshot.schema).removesuffix(" WHERE false") + f" WHERE error({literal(text)}) IS NULL"
        catalog.execute(f"CREATE OR REPLACE VIEW {quote(snapshot.name)} AS {rows}")
        catalog.execute(f"CREATE OR REPLACE MACRO {quote(snapshot.name + '_at')}(at_version) AS TABLE {rows}")


def _glob(snapshot: Snapshot) -> str:
    return literal(_escaped(snapshot.location) + "/**/*.parquet")


def _escaped(place: str) -> str:
    """A directory's name, in a glob."""
    return place.replace("[", "[[]").replace("*", "[*]").replace("?", "[?]")


def rows_sql(snapshot: Snapshot, table_id: int, alive: str, has_files: bool, globs: Sequence[str] = ()) -> str:
    """A query of a table's rows over the catalog's own tables: DuckDB globs, and opens only the files that are asked for.

    globs: where files outside of the table's directory are.
    """
    own = [_escaped(snapshot.location) + "/**/*.parquet"] if has_files else []  # a glob that matches nothing is an error
    if not own and not globs:
        return scan.empty_sql(snapshot.schema)
    glob = ", ".join(map(literal, [*own, *globs]))
    options = f"hive_partitioning=false, filename='dl_filename', schema={scan.schema_map(snapshot)}"
    values = [(i, f) for i, f in enumerate(snapshot.schema) if f.name in snapshot.partition_columns]
    live = ", ".join(
        [f"{scan.full_path('path', snapshot.location)} AS dl_path"]
        + [f"{partitions.deserialize(scan.partition_value(f.physical_name), f.type)} AS dl_value_{i}" for i, f in values]
    )
    columns = ", ".join(
        f"{f'l.dl_value_{i}' if (i, f) in values else 'r.' + quote(scan.column_alias(snapshot.schema, i))} AS {quote(f.name)}"
        for i, f in enumerate(snapshot.schema)
    )
    return (
        f"SELECT {columns} FROM read_parquet([{glob}], {options}) r "
        f"JOIN (SELECT {live} FROM dl_add_files WHERE table_id = {table_id} AND {alive}) l "
        "ON r.dl_filename = l.dl_path"
    )
