"""What directories of Parquet files hold that tables do not: types that disagree, values that are none, names of any kind."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deltaduck import Lake
from deltaduck.errors import DeltaduckError, SchemaMismatchError


def convert(lake: Lake, root: Path, files: dict[str, pa.Table], **options: object) -> None:
    for name, rows in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(rows, root / name)
    lake.convert(root, "t", **options)  # type: ignore[arg-type]


def test_numbers_among_strings_are_in_another_order(lake: Lake, tmp_path: Path) -> None:
    convert(lake, tmp_path / "c", {"1.parquet": pa.table({"a": [9, 10]}), "2.parquet": pa.table({"a": ["x", "y"]})})
    assert lake.sql("SELECT a FROM t WHERE a = '9'").fetchall() == [("9",)]
    assert lake.sql("SELECT a FROM t WHERE a >= '10' AND a < '11'").fetchall() == [("10",)]
    assert lake.table("t").files("a = 'z'").num_rows == 1  # of the numbers nothing is known
    assert lake.mirror.verify("t")


def test_a_column_named_as_a_member_of_another(lake: Lake, tmp_path: Path) -> None:
    rows = pa.table({"a, b": [100, None], "a": [{"b": 1}, {"b": None}]})
    convert(lake, tmp_path / "c", {"1.parquet": rows})
    assert lake.sql('SELECT "a, b" FROM t WHERE "a, b" IS NOT NULL').fetchall() == [(100,)]
    assert lake.sql("SELECT a.b FROM t WHERE a.b IS NOT NULL").fetchall() == [(1,)]


@pytest.mark.parametrize("kind", ["INT", "DATE", "TIMESTAMP"])
def test_a_directory_whose_value_is_none_of_its_type(lake: Lake, tmp_path: Path, kind: str) -> None:
    files = {"p=2024-01-01/a.parquet": pa.table({"n": [1]}), "p=x/a.parquet": pa.table({"n": [2]})}
    with pytest.raises(SchemaMismatchError, match=f"p=.*/a.parquet: '.*' is no {kind}.* partition column 'p'"):
        convert(lake, tmp_path / "c", files, partition_by={"p": kind})
    assert lake.find("t") is None
    assert not (tmp_path / "c" / "_delta_log").exists()
    lake.convert(tmp_path / "c", "t")
    assert lake.sql("FROM t ORDER BY n").fetchall() == [(1, "2024-01-01"), (2, "x")]


def test_values_of_directories_are_spelt_as_the_protocol_has_them(lake: Lake, tmp_path: Path) -> None:
    files = {f"d={d}/i={i}/a.parquet": pa.table({"n": [1]}) for d, i in (("2024-1-2", "01"), ("__HIVE_DEFAULT_PARTITION__", "2"))}
    convert(lake, tmp_path / "c", files, partition_by={"d": "DATE", "i": "INT"})
    values = lake.sql("SELECT partition_values FROM dl_add_files ORDER BY ALL").fetchall()
    assert values == [('{"d":"2024-01-02","i":"1"}',), ('{"d":null,"i":"2"}',)]
    assert lake.sql("SELECT d, i FROM t WHERE d = DATE '2024-01-02'").fetchall() == [(dt.date(2024, 1, 2), 1)]
    assert lake.table("t").files("i = 2").num_rows == 1


@pytest.mark.parametrize("mode", ["name", "id"])
def test_files_know_no_mapped_names(lake: Lake, tmp_path: Path, mode: str) -> None:
    with pytest.raises(DeltaduckError, match="column mapping"):
        convert(lake, tmp_path / "c", {"1.parquet": pa.table({"n": [1]})}, configuration={"delta.columnMapping.mode": mode})
    assert lake.find("t") is None
