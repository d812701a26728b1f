"""``_metadata``: where a row stands, and its id where the table tracks rows."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from deltaduck import Lake

MATERIALIZED = "_row-id-col-1"


def tracked(place: Path) -> str:
    """A table that tracks rows: one file whose ids follow from its base, one that was rewritten and kept them."""
    (place / "_delta_log").mkdir(parents=True)
    pq.write_table(pa.table({"v": ["a", "b"]}), place / "fresh.parquet")
    pq.write_table(pa.table({"v": ["c", "d"], MATERIALIZED: [7, None]}), place / "moved.parquet")
    schema = {"type": "struct", "fields": [{"name": "v", "type": "string", "nullable": True, "metadata": {}}]}
    configuration = {
        "delta.enableRowTracking": "true",
        "delta.rowTracking.materializedRowIdColumnName": MATERIALIZED,
        "delta.rowTracking.materializedRowCommitVersionColumnName": "_row-commit-version-col-1",
    }
    actions = [
        {"protocol": {"minReaderVersion": 1, "minWriterVersion": 7, "writerFeatures": ["rowTracking", "domainMetadata"]}},
        {"metaData": {"id": "1", "format": {"provider": "parquet", "options": {}}, "schemaString": json.dumps(schema),
                      "partitionColumns": [], "configuration": configuration}},
    ]  # fmt: skip
    for name, base in (("fresh", 100), ("moved", 200)):
        actions.append(
            {"add": {"path": f"{name}.parquet", "partitionValues": {}, "size": (place / f"{name}.parquet").stat().st_size,
                     "modificationTime": 1, "dataChange": True, "baseRowId": base, "defaultRowCommitVersion": 3}}
        )  # fmt: skip
    (place / "_delta_log" / f"{0:020d}.json").write_text("\n".join(json.dumps(action) for action in actions))
    return str(place)


def test_rows_have_the_ids_that_their_file_gives_them_or_that_they_kept(lake: Lake, tmp_path: Path) -> None:
    lake.import_table(tracked(tmp_path / "t"), "t")
    rows = lake.sql("SELECT v, _metadata.row_id, _metadata.row_commit_version FROM t ORDER BY v").fetchall()
    assert rows == [("a", 100, 3), ("b", 101, 3), ("c", 7, 3), ("d", 201, 3)]


def test_a_row_says_which_file_holds_it(lake: Lake) -> None:
    lake.write("t", [{"id": 1}, {"id": 2}])
    ((path, index, row_id),) = lake.sql(
        "SELECT t._metadata.file_path, _metadata.row_index, _metadata.row_id FROM t WHERE id = 2"
    ).fetchall()
    assert (Path(path).is_file(), index, row_id) == (True, 1, None)


def test_it_is_no_column_of_the_table(lake: Lake) -> None:
    lake.write("t", [{"id": 1}])
    assert lake.sql("FROM t").columns == ["id"]
