"""A table whose columns change type, come, go and begin or cease to partition it: every version is pruned by what it had."""

from __future__ import annotations

import os
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import deltaduck

EXAMPLES = int(os.environ.get("DELTADUCK_EXAMPLES", "5"))
KINDS = {
    "BIGINT": ["5", "-1"],
    "VARCHAR": ["'5'", "''", "'x'"],
    "DATE": ["DATE '2024-02-29'", "DATE '1969-12-31'"],
    "DOUBLE": ["0.1", "'nan'"],
}
SHAPES = st.tuples(
    st.dictionaries(st.sampled_from(["a", "b", "c"]), st.sampled_from(list(KINDS)), min_size=1, max_size=3),
    st.sampled_from([None, "a", "b"]),
    st.sampled_from(["overwrite", "merge", "append"]),
)


def rows(columns: dict[str, str], nth: int) -> str:
    values = [f"CAST({KINDS[kind][nth % len(KINDS[kind])]} AS {kind}) AS {name}" for name, kind in columns.items()]
    return f"SELECT {', '.join(values)}, {nth} AS id UNION ALL SELECT {', '.join(['NULL'] * len(values))}, {nth + 100}"


@given(st.lists(SHAPES, min_size=2, max_size=6))
@settings(max_examples=EXAMPLES)
def test_each_version_answers_by_its_own_schema(
    tmp_path_factory: pytest.TempPathFactory, shapes: list[tuple[dict[str, str], str | None, str]]
) -> None:
    folder: Path = tmp_path_factory.mktemp("schemas")
    versions: list[pa.Table] = []
    with deltaduck.connect(folder / "lake.duckdb") as lake:
        columns: dict[str, str] = {}
        for nth, (wanted, by, how) in enumerate(shapes):
            if how == "overwrite" or not columns:
                columns = dict(wanted)
                parts = [by] if by in columns else []
                lake.write(
                    "t", rows(columns, nth), mode="overwrite", schema_mode="overwrite" if nth else None, partition_by=parts
                )
            elif how == "merge":
                new = {name: kind for name, kind in wanted.items() if name not in columns}
                columns |= new
                lake.write("t", rows(columns, nth), schema_mode="merge")
            else:
                lake.write("t", rows(columns, nth))
            versions.append(lake.table("t").to_arrow())
    # opened anew: nothing is remembered from the time of writing
    with deltaduck.connect(folder / "lake.duckdb") as lake, duckdb.connect() as plain:
        for version, held in reversed(list(enumerate(versions))):
            plain.register("frame", held)
            plain.execute(
                "CREATE OR REPLACE TABLE held AS FROM frame"
            )  # a filter on an Arrow frame is Arrow's: NaN is not above 5
            for name, kind in [(f.name, kind) for f in held.schema for kind in KINDS if f.name != "id"]:
                for value in KINDS[kind]:
                    for test in (f"{name} = {value}", f"{name} >= {value}", f"{name} IS NULL", f"NOT {name} < {value}"):
                        try:
                            found = plain.sql(f"SELECT id FROM held WHERE {test} ORDER BY id").fetchall()
                        except duckdb.Error:
                            continue
                        ours = lake.sql(f"SELECT id FROM t AT (VERSION => {version}) WHERE {test} ORDER BY id").fetchall()
                        assert ours == found, (version, test)


def test_a_column_that_begins_to_partition_the_table_prunes_no_version_before(tmp_path: Path) -> None:
    with deltaduck.connect(tmp_path / "lake.duckdb") as lake:
        lake.write("t", "SELECT 5 AS p, 1 AS n")
        lake.write("t", "SELECT 6 AS p, 2 AS n", mode="overwrite", schema_mode="overwrite", partition_by="p")
        lake.write("t", "SELECT 7 AS p, 3 AS n", mode="overwrite", schema_mode="overwrite", partition_by=[])
        lake.write("t", "SELECT 8 AS p, 4 AS n", mode="overwrite", schema_mode="overwrite", partition_by="p")
    with deltaduck.connect(tmp_path / "lake.duckdb") as lake:
        for version, p in enumerate([5, 6, 7, 8]):
            assert lake.sql(f"SELECT n FROM t AT (VERSION => {version}) WHERE p = {p}").fetchall() == [(version + 1,)]
            assert lake.table("t").as_of(version).files(f"p = {p + 10}").num_rows == 0
