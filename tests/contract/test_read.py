"""A table through its handle: rows in any shape, versions, times, files after pruning."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from deltaduck import DeltaTable, Lake, QueryError, TableNotFoundError, VersionNotFoundError

UTC = dt.UTC
LATE = dt.datetime(2024, 2, 29, 23, 59, 59, 999999)

EVERY_TYPE: dict[str, tuple[pa.DataType, list[Any]]] = {
    "string": (pa.string(), ["ünïcode 表 🦆", "", None]),
    "long": (pa.int64(), [2**63 - 1, -(2**63), None]),
    "integer": (pa.int32(), [2**31 - 1, -(2**31), None]),
    "short": (pa.int16(), [32767, -32768, None]),
    "byte": (pa.int8(), [127, -128, None]),
    "float": (pa.float32(), [1.5, float("-inf"), None]),
    "double": (pa.float64(), [1e308, 5e-324, None]),
    "boolean": (pa.bool_(), [True, False, None]),
    "binary": (pa.binary(), [b"\x00\xff", b"", None]),
    "date": (pa.date32(), [dt.date(9999, 12, 31), dt.date(1, 1, 1), None]),
    "timestamp": (pa.timestamp("us", tz="UTC"), [LATE.replace(tzinfo=UTC), dt.datetime(1900, 1, 1, tzinfo=UTC), None]),
    "timestamp_ntz": (pa.timestamp("us"), [LATE, dt.datetime(1, 1, 1), None]),
    "decimal(10,2)": (pa.decimal128(10, 2), [Decimal("99999999.99"), Decimal("-0.01"), None]),
    "decimal(38,10)": (pa.decimal128(38, 10), [Decimal("1234567890123456789012345678.0123456789"), Decimal(0), None]),
    "struct": (pa.struct([("x", pa.int32()), ('o"d', pa.string())]), [{"x": 1, 'o"d': "y"}, {"x": None, 'o"d': None}, None]),
    "array": (pa.list_(pa.field("element", pa.int64())), [[1, None, 3], [], None]),
    "map": (pa.map_(pa.string(), pa.float64()), [[("a", 1.0), ("b", None)], [], None]),
    "array of structs": (
        pa.list_(pa.field("element", pa.struct([("d", pa.date32()), ("l", pa.list_(pa.field("element", pa.string())))]))),
        [[{"d": dt.date(2024, 1, 1), "l": ["a"]}, None], [], None],
    ),
    "map of arrays": (pa.map_(pa.int32(), pa.list_(pa.field("element", pa.int16()))), [[(1, [1, 2])], [(2, None)], None]),
    "struct of struct": (
        pa.struct([("s", pa.struct([("m", pa.map_(pa.string(), pa.bool_()))]))]),
        [{"s": {"m": [("k", True)]}}, {"s": None}, None],
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def everything() -> pa.Table:
    return pa.table({name: pa.array(values, type_) for name, (type_, values) in EVERY_TYPE.items()})


@pytest.fixture(scope="module")
def shop(shared_lake: Lake, everything: pa.Table) -> Lake:
    """`everything`: a column of each type; `orders`: four versions, partitioned, with a new column in the third."""
    shared_lake.write("everything", everything)
    orders = pa.table({"day": ["mon", "tue", "wed"], "id": [1, 2, 3], "amount": [10.0, 20.0, 30.0]})
    shared_lake.write("orders", orders, partition_by="day")  # 0
    shared_lake.write("orders", pa.table({"day": ["thu"], "id": [4], "amount": [40.0]}))  # 1
    shared_lake.write("orders", pa.table({"day": ["thu"], "id": [5], "note": ["late"]}), schema_mode="merge")  # 2
    shared_lake.table("orders").delete("id = 1")  # 3
    return shared_lake


def ids(t: DeltaTable) -> list[int]:
    return sorted(t.to_arrow()["id"].to_pylist())


# --- rows


@pytest.mark.parametrize("column", EVERY_TYPE)
def test_written_is_read(shop: Lake, everything: pa.Table, column: str) -> None:
    found = shop.table("everything").to_arrow([column])
    assert found.schema.field(column).type == everything.schema.field(column).type
    assert found[column].to_pylist() == everything[column].to_pylist()


def test_sql_reads_the_same(shop: Lake, everything: pa.Table) -> None:
    found = shop.sql("SELECT * FROM everything").to_arrow_table()
    assert found.cast(everything.schema).to_pylist() == everything.to_pylist()


def test_rows_in_other_shapes(shop: Lake) -> None:
    orders = shop.table("orders")
    assert sorted(orders.to_polars()["id"].to_list()) == [2, 3, 4, 5]
    assert sorted(orders.to_pandas()["id"].tolist()) == [2, 3, 4, 5]
    assert orders.to_arrow(["note", "id"], "id = 5").to_pylist() == [{"note": "late", "id": 5}]
    assert orders.to_polars(["id"], "day = 'tue'").rows() == [(2,)]
    assert orders.to_pandas(filter="id > 100").empty


def test_a_column_that_is_not_there(shop: Lake) -> None:
    with pytest.raises(QueryError, match="nope"):
        shop.table("orders").to_arrow(["nope"])
    with pytest.raises(QueryError, match="nope"):
        shop.table("orders").to_arrow(filter="nope = 1")
    with pytest.raises(QueryError, match="cannot be parsed"):
        shop.table("orders").to_arrow(filter="id = = 1")


# --- what it is


def test_schema_version_and_detail(shop: Lake) -> None:
    orders = shop.table("orders")
    assert orders.version() == 3
    assert orders.schema().names == ["day", "id", "amount", "note"]
    d = orders.detail()
    assert (d["name"], d["version"], d["num_files"], d["num_rows"]) == ("orders", 3, 4, 4)
    assert (d["partition_columns"], d["min_reader_version"], d["min_writer_version"]) == (["day"], 1, 2)
    assert d["size_in_bytes"] == sum(p.stat().st_size for p in live_paths(orders))
    assert d["created_at"] < dt.datetime.now(UTC)
    assert shop.table("everything").detail()["table_features"] == ["timestampNtz"]


def live_paths(t: DeltaTable) -> list[Path]:
    return [Path(t.detail()["location"], p) for p in t.files()["path"].to_pylist()]


def test_history_is_newest_first(shop: Lake) -> None:
    history = shop.table("orders").history()
    assert [(h["version"], h["operation"]) for h in history] == [
        (3, "DELETE"), (2, "WRITE"), (1, "WRITE"), (0, "CREATE TABLE AS SELECT"),
    ]  # fmt: skip
    times = [h["committed"] for h in history]
    assert times == sorted(times, reverse=True)
    assert len(set(times)) == 4  # so that a time names one version
    assert history[0]["operation_parameters"]["predicate"] == "id = 1"
    assert history[2]["operation_metrics"]["numOutputRows"] == "1"
    assert [h["version"] for h in shop.table("orders").history(limit=2)] == [3, 2]
    assert [h["version"] for h in shop.table("orders").as_of(version=1).history()] == [1, 0]


# --- files


def test_files_are_what_the_log_says(shop: Lake) -> None:
    files = shop.table("orders").files()
    assert {"path", "size", "modification_time", "partition_values", "num_records", "stats", "data_change"} <= set(
        files.column_names
    )
    assert files["version"].to_pylist() == [0, 0, 1, 2]
    assert all(p.exists() for p in live_paths(shop.table("orders")))
    assert json.loads(files["stats"][0].as_py())["numRecords"] == 1


@pytest.mark.parametrize("count", [100, 101, 1000])
def test_any_number_of_files_is_read(lake: Lake, count: int) -> None:
    """However the catalog hands over few and many of them: all, those of a predicate, and within a transaction, which goes on."""
    lake.write("t", pa.table({"p": range(count), "n": range(count)}), partition_by="p")
    assert lake.table("t").files().num_rows == lake.table("t").files("n >= 0").num_rows == count
    with lake.begin() as tx:
        tx.write("t", [{"p": count, "n": count}])
        assert tx.sql("SELECT count(*), sum(n) FROM t").fetchall() == [(count + 1, count * (count + 1) // 2)]
        tx.sql("DELETE FROM t WHERE n >= 1")
    assert lake.sql("SELECT n FROM t").fetchall() == [(0,)]
    assert lake.sql("SELECT count(*) FROM t AT (VERSION => 0)").fetchall() == [(count,)]


@pytest.mark.parametrize(
    ("predicate", "expected"),
    [
        (None, 4),
        ("day = 'thu'", 2),
        ("id = 4", 1),
        ("id > 3 AND day <> 'thu'", 0),
        ("amount >= 30", 3),  # the file without amounts has no bounds for it: it may be kept
        ("note = 'late'", 4),  # files from before the column was added say nothing of it
        ("id + 0 = 4", 4),  # not understood: kept
        ("day IN ('tue', 'wed') OR id = 5", 3),
    ],
)
def test_files_after_pruning(shop: Lake, predicate: str | None, expected: int) -> None:
    assert shop.table("orders").files(predicate).num_rows <= expected
    rows = shop.table("orders").to_arrow(filter=predicate).num_rows
    assert rows == shop.sql(f"SELECT count(*) FROM orders WHERE {predicate or 'true'}").fetchall()[0][0]
    if predicate in (None, "day = 'thu'", "id = 4", "id + 0 = 4"):
        assert shop.table("orders").files(predicate).num_rows == expected


# --- the past


@pytest.mark.parametrize(("version", "expected"), [(0, [1, 2, 3]), (1, [1, 2, 3, 4]), (2, [1, 2, 3, 4, 5]), (3, [2, 3, 4, 5])])
def test_every_version(shop: Lake, version: int, expected: list[int]) -> None:
    old = shop.table("orders").as_of(version=version)
    assert old.version() == version
    assert ids(old) == expected
    assert old.detail()["num_rows"] == len(expected)
    assert ("note" in old.schema().names) == (version >= 2)
    assert old.files("id = 4").num_rows == (1 if version >= 1 else 0)


def test_as_of_a_time(shop: Lake) -> None:
    orders = shop.table("orders")
    for row in orders.history():
        at = row["committed"]
        assert orders.as_of(timestamp=at).version() == row["version"]
        assert orders.as_of(timestamp=at.isoformat()).version() == row["version"]
        assert orders.as_of(timestamp=at.replace(tzinfo=None)).version() == row["version"]  # naive: UTC
        assert orders.as_of(timestamp=at.astimezone(dt.timezone(dt.timedelta(hours=9)))).version() == row["version"]
    before = orders.history()[0]["committed"] - dt.timedelta(milliseconds=1)
    assert orders.as_of(timestamp=before).version() == 2
    assert orders.as_of(timestamp=dt.date(9999, 1, 1)).version() == 3


def test_a_handle_follows_the_table_and_as_of_stays(lake: Lake, people: pa.Table) -> None:
    lake.write("people", people)
    now, then = lake.table("people"), lake.table("people").as_of(version=0)
    lake.write("people", people)
    assert (now.version(), then.version()) == (1, 0)
    assert (len(now.to_arrow()), len(then.to_arrow())) == (6, 3)


@pytest.mark.parametrize("version", [4, 99, -1])
def test_a_version_that_never_was(shop: Lake, version: int) -> None:
    with pytest.raises(VersionNotFoundError, match=f"'orders' has no version {version}.*0 to 3"):
        shop.table("orders").as_of(version=version)


def test_a_time_before_the_table(shop: Lake) -> None:
    for at in (dt.datetime(2001, 1, 1, tzinfo=UTC), "2001-01-01", dt.date(2001, 1, 1)):
        with pytest.raises(VersionNotFoundError, match=r"'orders' did not exist at 2001-01-01.*version 0"):
            shop.table("orders").as_of(timestamp=at)
    with pytest.raises(VersionNotFoundError, match="'yesterday' is no timestamp"):
        shop.table("orders").as_of(timestamp="yesterday")


def test_an_unknown_table_and_its_neighbour(shop: Lake) -> None:
    with pytest.raises(TableNotFoundError, match=r"'order'.*did you mean 'orders'"):
        shop.table("order")


# --- changing rows through the handle


def test_delete_and_update(lake: Lake, people: pa.Table) -> None:
    lake.write("people", people)
    t = lake.table("people")
    said = t.update({"name": "upper(name)", "id": "id + 10"}, predicate="id < 3")
    assert (said["num_updated_rows"], said["num_copied_rows"], said["num_removed_files"], said["num_added_files"]) == (2, 1, 1, 1)
    assert lake.sql("SELECT * FROM people ORDER BY id").fetchall() == [(3, None), (11, "ADA"), (12, "BO")]
    said = t.delete("name IS NULL")
    assert (said["num_deleted_rows"], said["num_copied_rows"], said["num_removed_files"], said["num_added_files"]) == (1, 2, 1, 1)
    assert t.delete("id = 1000")["num_deleted_rows"] == 0
    assert t.version() == 2
    said = t.delete()
    assert (said["num_deleted_rows"], said["num_removed_files"], said["num_added_files"]) == (2, 1, 0)
    assert t.to_arrow().num_rows == 0
    assert t.write(people) == 4
    assert t.as_of(version=0).to_arrow() == people


def test_a_delete_leaves_unknown_truths_alone(lake: Lake, people: pa.Table) -> None:
    """NULL = 'x' is not true, so the row stays; nor is NOT (NULL = 'x')."""
    lake.write("people", people)
    lake.table("people").delete("name = 'Ada'")
    lake.table("people").delete("NOT (name = 'nobody')")
    assert lake.table("people").to_arrow().to_pylist() == [{"id": 3, "name": None}]


# --- odd names

ODD_COLUMNS = [
    'quo"te', "apo'strophe", "semi;colon", "with space", "ünïcode 表", "a.b", "filename", "file_index", "file_row_number",
    "version", "Select", "a,b", "(x)", "[0]", "back`tick", "percent%20", "tab\there", "=", "dl_path", "__index_level_0__",
]  # fmt: skip


@pytest.mark.parametrize("partitioned", [False, True])
def test_odd_column_names(lake: Lake, partitioned: bool) -> None:
    rows = pa.table({name: [f"{name} 1", f"{name} 2", None] for name in ODD_COLUMNS} | {"n": [1, 2, 3]})
    lake.write("odd", rows, partition_by=ODD_COLUMNS[:8] if partitioned else None)
    lake.write("odd", rows.slice(0, 1))
    found = lake.table("odd").to_arrow()
    assert found.schema.names == rows.schema.names
    assert sorted(found.to_pylist(), key=str) == sorted([*rows.to_pylist(), rows.to_pylist()[0]], key=str)
    for name in ODD_COLUMNS:
        column, value = '"' + name.replace('"', '""') + '"', (name + " 2").replace("'", "''")
        assert lake.sql(f"SELECT n FROM odd WHERE {column} = '{value}'").fetchall() == [(2,)]
        assert lake.table("odd").files(f"{column} = 'nothing like it'").num_rows == 0
    name = ODD_COLUMNS[0].replace('"', '""')
    lake.sql(f"UPDATE odd SET \"{name}\" = 'new' WHERE n = 2")
    assert lake.sql(f"SELECT n FROM odd WHERE \"{name}\" = 'new'").fetchall() == [(2,)]
    assert lake.mirror.verify("odd")
    if lake.catalog.database == "duckdb":  # only DuckDB can hold a view over Parquet
        assert lake.catalog.fetch('SELECT count(*), count("filename") FROM odd') == [(4, 3)]


def test_odd_names_inside_structs(lake: Lake) -> None:
    rows = pa.table({"s": [{'quo"te': 1, "a.b": {"it's": "x"}}, {'quo"te': 5, "a.b": {"it's": "y"}}]})
    lake.write("t", rows)
    assert lake.table("t").to_arrow() == rows
    assert lake.sql('SELECT s."a.b"."it\'s" FROM t WHERE s."quo""te" > 2').fetchall() == [("y",)]
    stats = json.loads(lake.table("t").files()["stats"][0].as_py())
    assert stats["minValues"] == {"s": {'quo"te': 1, "a.b": {"it's": "x"}}}
    assert lake.table("t").files('s."quo""te" > 5').num_rows == 0
