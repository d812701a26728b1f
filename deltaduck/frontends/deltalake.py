"""``write_deltalake``, with the ``deltalake`` package's signature."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from deltaduck import properties
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
