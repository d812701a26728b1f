"""Few plain rows are written by Arrow, all others by DuckDB's COPY: the log says the same of both files."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltaduck import parquet, small_files
from deltaduck.protocol.schema import Field, Struct, quote, to_arrow
from deltaduck.protocol.stats import SkipColumn, skip_columns
from deltaduck.storage import make_root

PARTED = [(2, 1), (9, 0), (10, 2), (18, 17), (19, 4), (38, 20)]  # decimals with digits before the point
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "byte": st.integers(-(2**7), 2**7 - 1),
    "short": st.integers(-(2**15), 2**15 - 1),
    "integer": st.integers(-(2**31), 2**31 - 1),
    "long": st.integers(-(2**63), 2**63 - 1),
    "double": st.floats(allow_nan=False, allow_infinity=False),
    "boolean": st.booleans(),
    "string": st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40),
    "date": st.dates(dt.date(1, 1, 1), dt.date(9999, 12, 31)),
}
VALUES |= {f"decimal({p},{s})": st.decimals(-(10 ** (p - s)) + 1, 10 ** (p - s) - 1, places=s) for p, s in PARTED}
VALUES |= {f"decimal({p},{p})": st.decimals("-0.9999", "0.9999", places=p) for p in (4, 9, 18, 38)}
KINDS = list(VALUES)
SCHEMA = Struct(tuple(Field(f'a {kind} "c"', kind) for kind in KINDS))
rows = st.lists(st.tuples(*(st.none() | VALUES[kind] for kind in KINDS)), min_size=1, max_size=5)


def frame_of(values: list[tuple[Any, ...]]) -> pa.Table:
    columns = list(zip(*values, strict=True))
    return pa.table({f.name: pa.array(c, to_arrow(f.type)) for f, c in zip(SCHEMA, columns, strict=True)})


def target_in(directory: Path) -> parquet.Target:
    make_root(str(directory))
    skip = [SkipColumn(i, *c) for i, c in enumerate(skip_columns(SCHEMA, [], {}))]
    return parquet.Target(str(directory), SCHEMA, (), {}, skip)


@given(rows)
def test_the_log_says_the_same_of_a_file_whoever_wrote_it(tmp_path: Path, values: list[tuple[Any, ...]]) -> None:
    frame, target, con = frame_of(values), target_in(tmp_path), duckdb.connect()
    columns = [(f.name, quote(f.name)) for f in SCHEMA]
    con.register("frame", frame)
    adds, (copied,) = parquet.write_files(con, "frame", columns, target, 0)
    (theirs,) = adds.to_pylist()
    adds, (small,) = parquet.write_files(con, "dl_frame", columns, target, 0, dl_frame=frame)
    (ours,) = adds.to_pylist()
    assert b"DuckDB" in Path(copied).read_bytes()
    assert b"DuckDB" not in Path(small).read_bytes()
    assert ours["size"] == Path(small).stat().st_size
    for said in (ours, theirs):
        said["stats"] = json.loads(said["stats"])
        del said["path"], said["size"]
    assert ours == theirs
    read = "SELECT * FROM read_parquet('{}')"
    assert con.sql(f"DESCRIBE {read.format(small)}").fetchall() == con.sql(f"DESCRIBE {read.format(copied)}").fetchall()
    assert repr(con.sql(read.format(small)).fetchall()) == repr(con.sql(read.format(copied)).fetchall())


@pytest.mark.parametrize(
    "frame",
    [
        {"a": pa.array([float("nan")])},
        {"a": pa.array([float("inf")])},
        {"a": pa.array([1.5], pa.float32())},
        {"a": pa.array([], pa.float64())},
        {"b": pa.array([1.5])},
        {"a": pa.array([1.5]), "b": pa.array([1.5])},
        {"a": pa.array([1.5] * (small_files.MOST_ROWS + 1))},
        {"a": pa.array(["1.5"]).dictionary_encode()},
    ],
)
def test_everything_else_is_left_to_duckdb(frame: dict[str, pa.Array]) -> None:
    schema = Struct((Field("a", "double"),))
    assert not small_files.fits(pa.table(frame), schema, "snappy")
    assert small_files.fits(pa.table({"a": [1.5, None]}), schema, "snappy")
    assert not small_files.fits(pa.table({"a": [1.5]}), schema, "brotli")
    assert not small_files.fits(pa.table({"a": [1.5]}).to_reader(), schema, "snappy")
    assert not small_files.fits(pa.table({"a": pa.array([[1.5]])}), schema, "snappy")
