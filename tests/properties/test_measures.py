"""Statistics of a file that is just written are made by Python, those of files that are there by SQL: they are the same."""

from __future__ import annotations

import datetime as dt
import json
import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from deltaduck import parquet, skip_index, storage
from deltaduck.operations import footers
from deltaduck.operations.statistics import measured
from deltaduck.protocol.schema import Field, Struct, quote, to_arrow
from deltaduck.protocol.stats import SkipColumn, skip_columns

EXAMPLES = int(os.environ.get("DELTADUCK_EXAMPLES", "60"))
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5)
MOMENTS = st.datetimes(dt.datetime(1, 1, 1), dt.datetime(9999, 12, 31, 23, 59, 59, 999_999))
VALUES: dict[Any, st.SearchStrategy[Any]] = {
    "byte": st.integers(-(2**7), 2**7 - 1),
    "long": st.integers(-(2**63), 2**63 - 1),
    "float": st.floats(width=32),
    "double": st.floats(),
    "decimal(38,4)": st.decimals(-(10**33), 10**33, places=4),
    "decimal(4,4)": st.decimals("-0.9999", "0.9999", places=4),
    "boolean": st.booleans(),
    "binary": st.binary(max_size=3),
    "string": TEXT | st.builds("{}{}{}".format, st.sampled_from(["x" * 31, "é" * 32]), TEXT, st.sampled_from(["", "\U0010ffff"])),
    "date": st.dates(),
    "timestamp": MOMENTS.map(lambda t: t.replace(tzinfo=dt.UTC)),
    "timestamp_ntz": MOMENTS,
}
FIELDS = [Field(f'a {kind} "c"', kind) for kind in VALUES]
SCHEMA = Struct((*FIELDS, Field("in", Struct((Field("x", "long"), Field("y", Struct((Field("z", "string"),))))))))
ROW = st.tuples(*(st.none() | values for values in VALUES.values())).map(lambda row: dict(zip(VALUES, row, strict=True)))


def frame_of(rows: list[dict[Any, Any]]) -> pa.Table:
    columns = {f.name: pa.array([row[f.type] for row in rows], to_arrow(f.type)) for f in FIELDS}
    inner = [None if row["long"] is None else {"x": row["long"], "y": {"z": row["string"]}} for row in rows]
    return pa.table(columns | {"in": pa.array(inner, to_arrow(SCHEMA.fields[-1].type))})


@settings(max_examples=EXAMPLES)
@given(st.lists(ROW, min_size=1, max_size=4), st.integers(1, 20))
def test_they_say_what_the_writer_says(tmp_path: Path, rows: list[dict[Any, Any]], covered: int) -> None:
    storage.make_root(str(tmp_path))
    configuration = {"delta.dataSkippingNumIndexedCols": str(covered)}
    skip = [SkipColumn(i, *c) for i, c in enumerate(skip_columns(SCHEMA, [], configuration))]
    target, con = parquet.Target(str(tmp_path), SCHEMA, (), configuration, skip), duckdb.connect()
    con.execute("SET TimeZone = 'America/New_York'")
    con.register("frame", frame_of(rows))
    adds, (name,) = parquet.write_files(con, "frame", [(f.name, quote(f.name)) for f in SCHEMA], target, 0)
    (said,) = adds.to_pylist()
    told = measured(con, SCHEMA, (), configuration, "(SELECT *, 0 AS dl_file FROM frame)", pa.table({"dv_id": [""]}))
    (again,) = skip_index.described(con, told, pa.chunked_array([["{}"]]), skip).to_pylist()
    assert json.loads(told[0].as_py(), parse_float=Decimal) == json.loads(said["stats"], parse_float=Decimal)
    assert {column: again[column] for column in skip_index.names(skip)} == {c: said[c] for c in skip_index.names(skip)}
    footers.layouts(con, [name])
    (read,) = footers.adds(con, target, {said["path"]: said["size"]}, [name], {}, 0).to_pylist()
    assert {key: read[key] for key in ("path", "partition_values", "size", "num_records")} == {
        key: said[key] for key in ("path", "partition_values", "size", "num_records")
    }
    theirs, ours = json.loads(read["stats"], parse_float=Decimal), json.loads(said["stats"], parse_float=Decimal)
    assert theirs["nullCount"] == ours["nullCount"]
    for end in ("minValues", "maxValues"):  # a footer does not say whether it hides a NaN, and may say nothing of long strings
        wanted = {k: v for k, v in flat(ours[end]) if k not in (FIELDS[2].name, FIELDS[3].name)}
        found = dict(flat(theirs[end]))
        assert {k: v for k, v in wanted.items() if k in found} == found
        assert {*wanted} - {*found} <= {FIELDS[7].name, "in.y.z"}


def flat(tree: dict[str, Any], top: str = "") -> list[tuple[str, Any]]:
    found = []
    for name, value in tree.items():
        found += flat(value, f"{top}{name}.") if isinstance(value, dict) else [(top + name, value)]
    return found
