"""What Spark writes, with every feature that it has, we import and read: equal rows in every version, and equal changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import deltaduck
from deltaduck import Lake

AsText = Callable[[pa.Table], list[str]]
Read = Callable[..., pa.Table]


def made(columns: str, *properties: str, more: str = "") -> str:
    """A statement that makes a table; properties are true unless they say something else."""
    pairs = (text.split("=") if "=" in text else (text, "true") for text in properties)
    listed = ", ".join(f"'delta.{name}' = '{value}'" for name, value in pairs)
    return f"CREATE TABLE {{t}} ({columns}) USING delta {more} {f'TBLPROPERTIES ({listed})' if listed else ''}"


# (how the table is made, what is done to it): {t} is the table
SCRIPTS: dict[str, tuple[str, list[str]]] = {
    "plain": (
        made("id BIGINT, g STRING, v DOUBLE", more="PARTITIONED BY (g)"),
        [
            "INSERT INTO {t} VALUES (1, 'a b', 1.5), (2, NULL, double('NaN')), (3, 'c/d%', -0.0D)",
            "MERGE INTO {t} t USING (SELECT * FROM VALUES (1L, 'a b', 9.0D), (7L, 'new', NULL) s(id, g, v)) s ON t.id = s.id "
            "WHEN MATCHED THEN UPDATE SET * WHEN NOT MATCHED THEN INSERT *",
            "DELETE FROM {t} WHERE g IS NULL",
            "UPDATE {t} SET v = v + 1, g = 'moved' WHERE id = 3",
            "OPTIMIZE {t}",
            "RESTORE TABLE {t} TO VERSION AS OF 2",
        ],
    ),
    "deletion vectors": (
        made("id BIGINT, v STRING", "enableDeletionVectors"),
        [
            "INSERT INTO {t} SELECT /*+ COALESCE(1) */ id, CAST(id AS STRING) FROM range(1000)",
            "DELETE FROM {t} WHERE id % 3 = 0",
            "UPDATE {t} SET v = 'x' WHERE id BETWEEN 10 AND 20",
            "MERGE INTO {t} t USING (SELECT id FROM range(5)) s ON t.id = s.id WHEN MATCHED THEN DELETE "
            "WHEN NOT MATCHED THEN INSERT (id, v) VALUES (s.id, 'back')",
            "REORG TABLE {t} APPLY (PURGE)",
        ],
    ),
    "column mapping": (
        made("id BIGINT, old STRING, s STRUCT<a: INT, b: STRING>, p INT", "columnMapping.mode=name", more="PARTITIONED BY (p)"),
        [
            "INSERT INTO {t} VALUES (1, 'x', struct(1, 'u'), 1), (2, NULL, NULL, NULL)",
            "ALTER TABLE {t} RENAME COLUMN old TO `new name`",
            "ALTER TABLE {t} RENAME COLUMN s.a TO z",
            "INSERT INTO {t} VALUES (3, 'y', struct(2, 'v'), 2)",
            "ALTER TABLE {t} DROP COLUMN id",
            "ALTER TABLE {t} ADD COLUMN id STRING",
            "INSERT INTO {t} VALUES ('z', struct(3, 'w'), 3, 'text now')",
        ],
    ),
    "type widening": (
        made("n TINYINT, x FLOAT, d DECIMAL(5, 2), day DATE", "enableTypeWidening"),
        [
            "INSERT INTO {t} VALUES (1, 0.5, 123.45, DATE'2024-02-29'), (NULL, NULL, NULL, NULL)",
            "ALTER TABLE {t} ALTER COLUMN n TYPE INT",
            "ALTER TABLE {t} ALTER COLUMN x TYPE DOUBLE",
            "ALTER TABLE {t} ALTER COLUMN d TYPE DECIMAL(12, 4)",
            "INSERT INTO {t} VALUES (100000, 0.1D, 12345678.1234, DATE'1900-01-01')",
        ],
    ),
    "change data": (
        made("id BIGINT, g STRING", "enableChangeDataFeed", more="PARTITIONED BY (g)"),
        [
            "INSERT INTO {t} VALUES (1, 'a'), (2, 'b'), (3, NULL)",
            "UPDATE {t} SET id = id * 10 WHERE g = 'a' OR g IS NULL",
            "DELETE FROM {t} WHERE id = 2",
            "MERGE INTO {t} t USING (SELECT * FROM VALUES (10L, 'moved'), (4L, 'd') s(id, g)) s ON t.id = s.id "
            "WHEN MATCHED THEN UPDATE SET g = s.g WHEN NOT MATCHED THEN INSERT *",
            "INSERT OVERWRITE {t} VALUES (5, 'e')",
        ],
    ),
    "row tracking": (
        made("id BIGINT", "enableRowTracking"),
        ["INSERT INTO {t} VALUES (1), (2), (3)", "UPDATE {t} SET id = 20 WHERE id = 2", "DELETE FROM {t} WHERE id = 1"],
    ),
    "v2 checkpoints": (
        made("id BIGINT", "checkpointPolicy=v2", "checkpointInterval=2"),
        [
            "INSERT INTO {t} VALUES (1)",
            "INSERT INTO {t} VALUES (2)",
            "DELETE FROM {t} WHERE id = 1",
            "INSERT INTO {t} VALUES (4)",
        ],
    ),
    "clustering": (
        made("id BIGINT, g STRING", more="CLUSTER BY (g)"),
        ["INSERT INTO {t} VALUES (1, 'a'), (2, 'b')", "OPTIMIZE {t}", "INSERT INTO {t} VALUES (3, 'c')"],
    ),
    "in-commit timestamps": (
        made("id BIGINT", "enableInCommitTimestamps"),
        ["INSERT INTO {t} VALUES (1)", "INSERT INTO {t} VALUES (2)"],
    ),
}


def written(spark: Any, path: Path, script: str) -> None:
    first, then = SCRIPTS[script]
    spark.sql(first.replace("TABLE {t}", f"TABLE delta.`{path}`"))
    for statement in then:
        spark.sql(statement.format(t=f"delta.`{path}`"))


@pytest.fixture
def lake(tmp_path: Path) -> Any:
    with deltaduck.connect(tmp_path / "lake.duckdb") as lake:
        yield lake


@pytest.mark.parametrize("script", SCRIPTS)
def test_what_spark_writes_is_read(spark: Any, lake: Lake, read: Read, as_text: AsText, tmp_path: Path, script: str) -> None:
    path = tmp_path / "theirs"
    written(spark, path, script)
    lake.import_table(path, "t")
    table = lake.table("t")
    versions = spark.sql(f"DESCRIBE HISTORY delta.`{path}`").count()
    assert table.version() == versions - 1
    for version in range(versions):
        theirs, ours = read(path, version), table.as_of(version).to_arrow()
        assert theirs.column_names == ours.column_names, f"version {version}"
        assert as_text(theirs) == as_text(ours), f"version {version}"


def test_the_change_feed_is_sparks(spark: Any, lake: Lake, read: Read, as_text: AsText, tmp_path: Path) -> None:
    path = tmp_path / "theirs"
    written(spark, path, "change data")
    lake.import_table(path, "t")
    table = lake.table("t")
    for first, last in ((0, table.version()), (2, 3), (4, 4)):
        theirs = read(path, readChangeFeed=True, startingVersion=first, endingVersion=last)
        ours = table.changes(first, last).to_arrow_table()
        assert theirs.column_names == ours.column_names
        # Spark takes the time at which the log's file was written, and we what the commit says of itself
        assert as_text(theirs.drop_columns("_commit_timestamp")) == as_text(ours.drop_columns("_commit_timestamp")), (first, last)


def test_row_ids_are_sparks(spark: Any, lake: Lake, as_text: AsText, tmp_path: Path) -> None:
    path = tmp_path / "theirs"
    written(spark, path, "row tracking")
    lake.import_table(path, "t")
    columns = "id, _metadata.row_id AS row_id, _metadata.row_commit_version AS row_version"
    theirs = spark.read.format("delta").load(str(path)).selectExpr(*columns.split(", ")).toArrow()
    assert as_text(theirs) == as_text(lake.sql(f"SELECT {columns} FROM t").to_arrow_table())


def test_a_table_is_passed_to_and_fro(spark: Any, lake: Lake, read: Read, as_text: AsText, tmp_path: Path) -> None:
    """Spark makes it, we import and change it, Spark changes our mirror, and we take that in as well."""
    path = tmp_path / "theirs"
    written(spark, path, "deletion vectors")
    lake.import_table(path, "t")
    lake.sql("DELETE FROM t WHERE id % 7 = 0")
    lake.write("t", pa.table({"id": [5000], "v": ["ours"]}))
    assert as_text(read(path)) == as_text(lake.table("t").to_arrow())
    spark.sql(f"UPDATE delta.`{path}` SET v = 'theirs' WHERE id = 5000 OR id = 1")
    with deltaduck.connect(tmp_path / "second.duckdb") as second:
        second.import_table(path, "t")
        assert as_text(second.table("t").to_arrow()) == as_text(read(path))
        for version in range(second.table("t").version() + 1):
            assert second.table("t").as_of(version).to_arrow().num_rows == read(path, version).num_rows
