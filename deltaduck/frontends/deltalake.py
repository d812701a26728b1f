"""``write_deltalake`` and ``convert_to_deltalake``, with the ``deltalake`` package's signatures."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from deltaduck import properties, storage, uris
from deltaduck.errors import MirrorError, SchemaMismatchError, TableExistsError, UnsupportedFeatureError
from deltaduck.lake import connect
from deltaduck.operations import convert
from deltaduck.operations.create import as_schema
from deltaduck.protocol import log
from deltaduck.protocol.schema import to_duckdb
from deltaduck.table import DeltaTable


def write_deltalake(
    table_or_uri: str | os.PathLike[str] | DeltaTable, data: Any, *, partition_by: Sequence[str] | str | None = None,
    mode: str = "error", name: str | None = None, description: str | None = None,
    configuration: Mapping[str, str | None] | None = None, schema_mode: str | None = None,
    storage_options: Mapping[str, str] | None = None, predicate: str | None = None, target_file_size: int | None = None,
    writer_properties: Any = None, commit_properties: Any = None, post_commithook_properties: Any = None,
) -> None:  # fmt: skip
    """Write rows to a table by its URI, creating the table, and its lake, when absent.

    data: whatever ``Lake.write`` takes. mode: "error" when the table exists, "append", "overwrite", or "ignore": then do
    nothing. schema_mode: "merge" adds new columns, "overwrite" replaces the schema. predicate: with mode="overwrite",
    replace only the rows that match. name, description, configuration: of a new table.
    writer_properties, commit_properties, post_commithook_properties: ours or the ``deltalake`` package's.

    UnsupportedFeatureError names a parameter that cannot be honoured; nothing has been written then.
    """
    if isinstance(table_or_uri, DeltaTable):
        place = table_or_uri.place
    else:
        place = DeltaTable.locate(table_or_uri, storage_options, True)
    options = {
        "partition_by": partition_by, "schema_mode": schema_mode, "predicate": predicate, "description": description,
        "configuration": {k: v for k, v in (configuration or {}).items() if v is not None},
        "copy_options": properties.copy_options(writer_properties, target_file_size),
    }  # fmt: skip
    if mode == "ignore" and place.lake.find(place.table) is not None:
        return
    with place.lake.begin() as tx:
        tx.write(place.table, data, mode, **options)
        if (change := tx.change(place.table)) is not None:
            properties.describe(change, name, commit_properties, post_commithook_properties)


def convert_to_deltalake(
    uri: str | os.PathLike[str], mode: str = "error", partition_by: Any = None, partition_strategy: str | None = None,
    name: str | None = None, description: str | None = None, configuration: Mapping[str, str | None] | None = None,
    storage_options: Mapping[str, str] | None = None, *, collect_stats: bool = True, commit_properties: Any = None,
    post_commithook_properties: Any = None,
) -> None:  # fmt: skip
    """Make a Delta table of the Parquet files below a directory, in place: a log beside them, for whoever reads Delta.

    ``Lake.convert`` makes a lake's table of them. mode: "error" when there is a Delta table already; "ignore" leaves that alone.
    partition_by: a schema of the partition columns, in the order of the directories (``day=2024-01-01/``, the strategy "hive").
    collect_stats: accepted; footers are read, and statistics taken, in any case.
    """
    if uris.is_uri(os.fspath(uri)):
        raise UnsupportedFeatureError(
            f"{uris.redact(os.fspath(uri))} names a table of a lake: convert a directory, by Lake.convert"
        )
    if mode not in ("error", "ignore"):
        raise SchemaMismatchError(f"mode {mode!r} is unknown; it is 'error' or 'ignore'")
    if partition_strategy not in (None, "hive"):
        raise UnsupportedFeatureError(f"partition_strategy={partition_strategy!r} cannot be honoured: 'hive' can")
    root = storage.normalize(uri, storage.Access(storage_options))
    if storage.list_log(root):
        if mode == "ignore":
            return
        raise TableExistsError(f"there is a Delta table at {root} already; mode='ignore' leaves it as it is")
    settings = {k: v for k, v in (configuration or {}).items() if v is not None}
    with connect(storage=root, storage_options=storage_options) as lake:
        parts = None if partition_by is None else {f.name: to_duckdb(f.type) for f in as_schema(lake.con, partition_by)}
        with lake.begin() as tx:
            convert.convert(tx, root, "converted", partition_by=parts, configuration=settings, description=description)
            change = tx.change("converted")
            assert change is not None
            properties.describe(change, name or os.path.basename(root), commit_properties, post_commithook_properties)
        lake.mirror.reconcile()
        if not storage.exists(root, log.commit_file(0)):
            raise MirrorError(f"the log of the new table at {root} cannot be written; the files are as they were")
