"""Rows into tables: modes, schemas, partitions, properties, idempotence, and every kind of frame."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from deltaduck import (
    ConstraintViolationError,
    DeltaduckError,
    Lake,
    QueryError,
    SchemaMismatchError,
    TableExistsError,
    UnsupportedFeatureError,
)

Log = Callable[[Lake, str, int], list[dict[str, Any]]]


def data_files(lake: Lake, table: str) -> list[Path]:
    """The Parquet files on disk, referenced or not."""
    root = Path(lake.table(table).detail()["location"])
    return [p for p in root.rglob("*.parquet") if "_delta_log" not in p.parts]


# --- modes


def test_a_first_write_creates_and_further_ones_append(lake: Lake, people: pa.Table) -> None:
    assert lake.write("people", people) == 0
    assert lake.write("people", people) == 1
    assert lake.table("people").to_arrow() == pa.concat_tables([people, people])
    assert [h["operation"] for h in lake.table("people").history()] == ["WRITE", "CREATE TABLE AS SELECT"]


def test_overwrite_replaces_all_rows_and_keeps_the_past(lake: Lake, people: pa.Table) -> None:
    lake.write("people", people)
    assert lake.write("people", people.slice(2), mode="overwrite") == 1
    assert lake.table("people").to_arrow() == people.slice(2)
    assert lake.table("people").as_of(version=0).to_arrow() == people


def test_error_and_ignore_leave_an_existing_table_alone(lake: Lake, people: pa.Table) -> None:
    assert lake.write("people", people, mode="error") == 0
    assert lake.write("people", people.slice(0, 1), mode="ignore") == 0
    with pytest.raises(TableExistsError, match="'people' exists"):
        lake.write("people", people, mode="error")
    assert lake.table("people").version() == 0
    assert lake.write("other", people, mode="ignore") == 0
    assert lake.table("other").to_arrow() == people


def test_a_write_of_no_rows_to_an_existing_table_is_no_commit(lake: Lake, people: pa.Table) -> None:
    lake.write("people", people)
    assert lake.write("people", people.slice(0, 0)) == 0
    assert len(data_files(lake, "people")) == 1


def test_a_first_write_of_no_rows_makes_an_empty_table(lake: Lake, people: pa.Table) -> None:
    assert lake.write("people", people.slice(0, 0)) == 0
    assert lake.table("people").to_arrow() == people.slice(0, 0)
    assert data_files(lake, "people") == []
    assert lake.sql("SELECT count(*) FROM people").fetchall() == [(0,)]


def test_overwriting_with_no_rows_empties_the_table(lake: Lake, people: pa.Table) -> None:
    lake.write("people", people)
    assert lake.write("people", people.slice(0, 0), mode="overwrite") == 1
    assert lake.table("people").to_arrow().num_rows == 0


# --- partitions


def test_partitions(lake: Lake, days: pa.Table) -> None:
    lake.write("days", days, partition_by=["day"])
    files = lake.table("days").files()
    values = sorted(files["partition_values"].to_pylist())
    assert values == ['{"day":"mon"}', '{"day":"tue"}', '{"day":"wed"}', '{"day":null}']
    assert lake.sql("SELECT day, n FROM days ORDER BY n").fetchall() == [tuple(r.values()) for r in days.to_pylist()]
    assert lake.sql("SELECT n FROM days WHERE day IS NULL").fetchall() == [(6,)]
    assert all("mon" not in p.read_bytes().decode("latin1") for p in data_files(lake, "days"))  # values are in the log alone


PARTITION_TYPES = [
    ("VARCHAR", ["a/b", "a=b", "50%", "ä ö", "it's", 'q"', ".", "..", "x" * 60, "__HIVE_DEFAULT_PARTITION__", "null", "a\nb"]),
    ("INTEGER", [-1, 0, 2_000_000_000]),
    ("BIGINT", [-(2**63), 2**63 - 1]),
    ("SMALLINT", [-32768, 7]),
    ("TINYINT", [-128, 7]),
    ("BOOLEAN", [True, False]),
    ("DOUBLE", [0.1, -2.5e300, float("inf")]),
    ("FLOAT", [0.5, 1e10]),
    ("DECIMAL(12,3)", ["0.001", "-12345.678"]),
    ("DATE", ["2024-02-29", "1969-12-31", "0001-01-01"]),
    ("TIMESTAMP", ["2024-01-02 03:04:05.000006", "1969-12-31 23:59:59.999999"]),
    ("TIMESTAMPTZ", ["2024-01-02 03:04:05.000006+00", "1969-12-31 23:59:59.999999+00"]),
    ("BLOB", ["bytes", "more"]),
]


@pytest.mark.parametrize(("type_", "values"), PARTITION_TYPES, ids=[t for t, _ in PARTITION_TYPES])
def test_every_primitive_partitions(lake: Lake, type_: str, values: list[Any]) -> None:
    rows = pa.table({"n": list(range(len(values) + 1)), "v": [*map(str, values), None]})
    lake.con.register("given", rows)
    lake.con.execute(f"CREATE TEMP TABLE wanted AS SELECT CAST(v AS {type_}) AS p, n FROM given")
    lake.con.execute("SET TimeZone = 'Asia/Tokyo'")  # no value depends on the session's zone
    lake.write("t", "SELECT p, n FROM wanted", partition_by="p")
    differing = lake.sql("SELECT count(*) FROM t FULL JOIN wanted w USING (n) WHERE t.p IS DISTINCT FROM w.p").fetchall()
    assert differing == [(0,)]
    assert lake.sql("SELECT t.n FROM t JOIN wanted w ON t.p = w.p WHERE w.n = 1").fetchall() == [(1,)]
    if type_ not in ("DOUBLE", "FLOAT"):  # a NaN may be held as NULL, so files of NULLs are not told apart
        assert lake.table("t").files("p IS NULL").num_rows == 1


def test_the_empty_string_in_a_partition_is_null(lake: Lake) -> None:
    """As the protocol says: a partition value that is empty means NULL."""
    lake.write("t", pa.table({"p": ["", "a"], "n": [1, 2]}), partition_by="p")
    assert lake.sql("SELECT p, n FROM t ORDER BY n").fetchall() == [(None, 1), ("a", 2)]


def test_partitioning_is_kept_and_may_be_told_again(lake: Lake, days: pa.Table) -> None:
    lake.write("days", days, partition_by=["day"])
    lake.write("days", days)
    lake.write("days", days, partition_by="DAY")
    assert lake.table("days").detail()["partition_columns"] == ["day"]
    with pytest.raises(SchemaMismatchError, match=r"partitioned by \['day'\], not \['n'\]"):
        lake.write("days", days, partition_by=["n"])
    with pytest.raises(SchemaMismatchError, match=r"partitioned by \['day'\], not \[\]"):
        lake.write("days", days, partition_by=[])
    assert lake.table("days").version() == 2


# --- schemas


def test_columns_go_by_name_and_missing_ones_are_null(lake: Lake, people: pa.Table) -> None:
    lake.write("people", people)
    lake.write("people", pa.table({"NAME": ["Cy"], "ID": pa.array([4], pa.int16())}))
    lake.write("people", pa.table({"id": [5]}))
    assert lake.sql("SELECT * FROM people WHERE id > 3 ORDER BY id").fetchall() == [(4, "Cy"), (5, None)]


def test_a_column_of_nothing_but_nulls_fits_any(lake: Lake, people: pa.Table) -> None:
    lake.write("people", people)
    lake.write("people", [{"id": 4, "name": None}])
    lake.write("people", pd.DataFrame({"id": [5], "name": [None]}))
    assert lake.sql("SELECT * FROM people WHERE id > 3 ORDER BY id").fetchall() == [(4, None), (5, None)]


def test_nulls_of_no_type_fit_inside_of_a_column_too(lake: Lake) -> None:
    lake.create_table("t", {"id": "BIGINT", "l": "VARCHAR[]", "s": "STRUCT(a INTEGER, b STRUCT(c DATE)[])"})
    lake.write("t", [{"id": 1, "l": [], "s": {"a": None, "b": []}}])
    lake.write("t", pl.DataFrame({"id": [2], "l": [[None]], "s": [{"a": 1, "b": None}]}))
    lake.write("t", pa.table({"id": [3], "s": pa.array([{"b": [None]}])}), schema_mode="merge")
    lake.write("t", pa.table({"id": [4], "s": pa.array([{"b": [{"c": None}]}])}))
    rows = lake.sql("SELECT l, s FROM t ORDER BY id").fetchall()
    assert rows == [
        ([], {"a": None, "b": []}),
        ([None], {"a": 1, "b": None}),
        (None, {"a": None, "b": [None]}),
        (None, {"a": None, "b": [{"c": None}]}),
    ]


@pytest.mark.parametrize(
    ("value", "named"),
    [(None, "x"), ([], "x.element"), ({"a": 1, "b": None}, "x.b"), ([{"a": None}], "x.element.a")],
    ids=str,
)
def test_a_new_column_has_a_type(lake: Lake, value: Any, named: str) -> None:
    """void in a log is what some readers cannot open."""
    says = f"column '{named}' holds only NULLs, so its type is unknown: cast it"
    rows = pa.table({"n": [1], "x": pa.array([value])})
    with pytest.raises(SchemaMismatchError, match=says):
        lake.write("t", rows)
    with pytest.raises(SchemaMismatchError, match=says):
        lake.create_table("t", rows.schema)
    assert lake.tables() == []
    lake.write("t", pa.table({"n": [1]}))
    with pytest.raises(SchemaMismatchError, match=says):
        lake.write("t", rows, schema_mode="merge")
    assert lake.table("t").version() == 0


def test_schema_mode_merge_adds_columns_everywhere(lake: Lake, people: pa.Table) -> None:
    lake.write("t", people.append_column("s", pa.array([{"x": 1}] * 3)))
    more = pa.table({"id": [4], "s": [{"y": "new", "x": 2}], "born": pa.array([0], pa.date32())})
    assert lake.write("t", more, schema_mode="merge") == 1
    assert lake.table("t").schema().names == ["id", "name", "s", "born"]
    rows = lake.sql("SELECT id, s, born FROM t WHERE id >= 3 ORDER BY id").fetchall()
    assert [(i, s, str(b)) for i, s, b in rows] == [(3, {"x": 1, "y": None}, "None"), (4, {"x": 2, "y": "new"}, "1970-01-01")]
    assert lake.sql("SELECT * FROM t AT (VERSION => 0) LIMIT 0").columns == ["id", "name", "s"]
    assert lake.write("t", more, schema_mode="merge") == 2  # nothing new the second time
    assert lake.sql("SELECT count(*), count(born) FROM t").fetchall() == [(5, 2)]


def test_merging_without_new_columns_is_a_plain_append(lake: Lake, people: pa.Table, log: Log) -> None:
    lake.write("t", people)
    lake.write("t", people, schema_mode="merge")
    assert [next(iter(a)) for a in log(lake, "t", 1)] == ["commitInfo", "add"]


def test_schema_mode_overwrite_replaces_columns_and_partitions(lake: Lake, people: pa.Table, days: pa.Table) -> None:
    lake.write("t", people)
    assert lake.write("t", days, mode="overwrite", schema_mode="overwrite", partition_by="day") == 1
    assert lake.table("t").schema().names == ["day", "n"]
    assert lake.table("t").detail()["partition_columns"] == ["day"]
    assert lake.sql("SELECT sum(n) FROM t").fetchall() == [(21,)]
    assert lake.table("t").as_of(version=0).to_arrow() == people
    assert lake.sql("SELECT max(name) FROM t AT (VERSION => 0)").fetchall() == [("Bo",)]


def test_a_column_may_change_its_type_by_overwriting(lake: Lake) -> None:
    lake.write("t", pa.table({"a": [1]}))
    lake.write("t", pa.table({"a": ["x"]}), mode="overwrite", schema_mode="overwrite")
    lake.write("t", pa.table({"a": ["y"]}))
    assert lake.sql("SELECT a FROM t ORDER BY a").fetchall() == [("x",), ("y",)]
    assert lake.table("t").files("a = 'y'").num_rows == 1
    assert lake.sql("SELECT a FROM t AT (VERSION => 0) WHERE a = 1").fetchall() == [(1,)]


# --- replaceWhere


def test_predicate_overwrite_replaces_the_rows_that_match(lake: Lake, days: pa.Table) -> None:
    lake.write("days", days, partition_by=["day"])
    before = set(lake.table("days").files()["path"].to_pylist())
    lake.write("days", pa.table({"day": ["mon"], "n": [100]}), mode="overwrite", predicate="day = 'mon'")
    assert lake.sql("SELECT n FROM days ORDER BY n").fetchall() == [(3,), (4,), (5,), (6,), (100,)]
    assert len(before & set(lake.table("days").files()["path"].to_pylist())) == 3  # other files are not touched
    assert lake.table("days").history(1)[0]["operation_parameters"]["predicate"] == "day = 'mon'"


def test_predicate_overwrite_within_files(lake: Lake, people: pa.Table) -> None:
    lake.write("people", people)
    lake.write("people", pa.table({"id": [9], "name": ["Zed"]}), mode="overwrite", predicate="id >= 2")
    assert lake.sql("SELECT * FROM people ORDER BY id").fetchall() == [(1, "Ada"), (9, "Zed")]


def test_rows_that_do_not_match_their_predicate_are_refused(lake: Lake, days: pa.Table) -> None:
    lake.write("days", days, partition_by=["day"])
    files = len(data_files(lake, "days"))
    for rows in (pa.table({"day": ["mon", "tue"], "n": [1, 2]}), pa.table({"day": pa.array([None], pa.string()), "n": [1]})):
        with pytest.raises(ConstraintViolationError, match=r"'days'.*does not match.*day = 'mon'"):
            lake.write("days", rows, mode="overwrite", predicate="day = 'mon'")
    assert lake.table("days").version() == 0
    assert len(data_files(lake, "days")) == files


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"mode": "upsert"}, "upsert.*append, overwrite, error, ignore"),
        ({"schema_mode": "evolve"}, "evolve"),
        ({"predicate": "id = 1"}, "mode='overwrite'"),
        ({"schema_mode": "overwrite"}, "mode='overwrite'"),
        ({"schema_mode": "overwrite", "mode": "overwrite", "predicate": "id = 1"}, "whole table"),
    ],
)
def test_options_that_contradict_each_other(lake: Lake, people: pa.Table, options: dict[str, Any], named: str) -> None:
    lake.write("people", people)
    with pytest.raises(DeltaduckError, match=named):
        lake.write("people", people, **options)
    assert lake.table("people").version() == 0


# --- what the log keeps


def test_properties_are_kept_and_honoured(lake: Lake, people: pa.Table) -> None:
    lake.write("t", people, configuration={"delta.appendOnly": "true", "owner": "me"}, description="text")
    assert lake.table("t").detail()["properties"] == {"delta.appendOnly": "true", "owner": "me"}
    lake.write("t", people)
    for statement in ("DELETE FROM t", "UPDATE t SET name = 'x'"):
        with pytest.raises(ConstraintViolationError, match="'t' is append-only"):
            lake.sql(statement)
    with pytest.raises(ConstraintViolationError, match="'t' is append-only"):
        lake.write("t", people, mode="overwrite")
    with pytest.raises(UnsupportedFeatureError, match="owner"):
        lake.write("t", people, configuration={"owner": "you"})
    assert lake.table("t").version() == 1


def test_compression_is_a_property(lake: Lake, people: pa.Table) -> None:
    lake.write("t", people, configuration={"delta.parquet.compression.codec": "zstd"})
    (file,) = data_files(lake, "t")
    assert duckdb.execute("SELECT DISTINCT compression FROM parquet_metadata($1)", [str(file)]).fetchall() == [("ZSTD",)]


@pytest.mark.parametrize(
    ("version", "more", "numbers", "texts"),
    [
        (None, "1::SMALLINT", "PLAIN", "PLAIN"),
        ("1.0.0", "1::SMALLINT", "PLAIN", "PLAIN"),
        ("2.12.0", "1::SMALLINT", "DELTA_BINARY_PACKED", "DELTA_LENGTH_BYTE_ARRAY"),
        ("2.12.0", "1::DOUBLE", "PLAIN", "PLAIN"),
        ("2.12.0", "[{'x': 1::FLOAT}]", "PLAIN", "PLAIN"),
        ("2.12.0", "MAP {'x': 1::INTEGER}", "PLAIN", "PLAIN"),
        ("2.12.0", "DATE '2024-02-29'", "PLAIN", "PLAIN"),
    ],
)
def test_the_version_of_parquet_is_a_property(lake: Lake, version: str | None, more: str, numbers: str, texts: str) -> None:
    """Not where somebody does not read what DuckDB makes of a type in the second."""
    said = {} if version is None else {"delta.parquet.format.version": version}
    lake.write("t", f"SELECT i AS n, 'text ' || i AS t, {more} AS more FROM range(9999) r(i)", configuration=said)
    (file,) = data_files(lake, "t")
    found = "SELECT encodings FROM parquet_metadata($1) WHERE path_in_schema IN ('n', 't') ORDER BY path_in_schema"
    assert duckdb.execute(found, [str(file)]).fetchall() == [(numbers,), (texts,)]
    assert lake.sql("SELECT count(DISTINCT n), sum(n), count(DISTINCT t) FROM t").fetchall() == [(9999, 49_985_001, 9999)]


def test_commit_metadata_is_in_the_history(lake: Lake, people: pa.Table, log: Log) -> None:
    text = 'nightly "load" – :version; {"json": true}'
    lake.write("t", people, commit_metadata=text)
    assert lake.table("t").history()[0]["user_metadata"] == text
    assert log(lake, "t", 0)[0]["commitInfo"]["userMetadata"] == text


def test_statistics_cover_nested_leaves_and_say_what_they_know(lake: Lake) -> None:
    rows = pa.table(
        {
            "i": [3, 1, None],
            "s": ["b", "a" * 40, None],
            "f": [1.5, float("nan"), -2.0],
            "st": [{"x": 1, "y": {"z": "deep"}}, {"x": 5, "y": None}, None],
            "l": [[1, 2], [], None],
            "d": pa.array([0, 19_000, None], pa.date32()),
            "ts": pa.array([1_500, None, -1], pa.timestamp("us", tz="UTC")),
            "b": [True, False, None],
        }
    )
    lake.write("t", rows)
    stats = json.loads(lake.table("t").files()["stats"][0].as_py())
    assert stats["numRecords"] == 3
    low, high, nulls = stats["minValues"], stats["maxValues"], stats["nullCount"]
    assert (low["i"], high["i"], nulls["i"]) == (1, 3, 1)
    assert low["s"] == "a" * 32  # cut
    assert high["s"] == "b"
    assert low["f"] == -2.0
    assert "f" not in high  # a NaN is above every number
    assert (low["st"]["x"], high["st"]["x"], nulls["st"]["x"]) == (1, 5, 1)
    assert low["st"]["y"]["z"] == "deep"
    assert (low["d"], high["d"]) == ("1970-01-01", "2022-01-08")
    assert low["ts"] == "1969-12-31T23:59:59.999Z"
    assert high["ts"] == "1970-01-01T00:00:00.002Z"  # outwards, to the millisecond
    assert nulls["b"] == 1
    assert not {"b", "l"} & {*low, *high}


def test_a_long_maximum_is_cut_upwards(lake: Lake) -> None:
    lake.write("t", pa.table({"s": ["z" * 40, "a"]}))
    high = json.loads(lake.table("t").files()["stats"][0].as_py())["maxValues"]["s"]
    assert len(high) <= 33
    assert high > "z" * 40
    assert lake.table("t").files(f"s = '{'z' * 40}'").num_rows == 1


@pytest.mark.parametrize(("count", "expected"), [("0", []), ("1", ["a"]), ("2", ["a", "c"]), ("-1", ["a", "c", "d"])])
def test_statistics_are_for_the_first_columns(lake: Lake, count: str, expected: list[str]) -> None:
    rows = pa.table({"a": [1], "p": ["x"], "c": [2], "d": [3]})
    lake.write("t", rows, partition_by="p", configuration={"delta.dataSkippingNumIndexedCols": count})
    stats = json.loads(lake.table("t").files()["stats"][0].as_py())
    assert list(stats["nullCount"]) == expected
    assert lake.table("t").files("d = 3 AND p = 'x'").num_rows == 1
    assert lake.table("t").files("p = 'y'").num_rows == 0


# --- idempotence


def test_an_application_commits_a_version_once(lake: Lake, people: pa.Table, log: Log) -> None:
    assert lake.write("t", people, app_transaction=("loader", 7)) == 0
    assert lake.write("t", people, app_transaction=("loader", 7)) == 0
    assert lake.write("t", people, app_transaction=("loader", 3)) == 0  # older: long done
    assert lake.write("t", people, app_transaction=("other", 3)) == 1
    assert lake.write("t", people, app_transaction=("loader", 8)) == 2
    assert lake.sql("SELECT count(*) FROM t").fetchall() == [(9,)]
    (txn,) = [a["txn"] for a in log(lake, "t", 2) if "txn" in a]
    assert (txn["appId"], txn["version"]) == ("loader", 8)


def test_two_threads_of_one_application_commit_once(open_lake: Callable[[], Lake], people: pa.Table) -> None:
    lakes = [open_lake(), open_lake()]
    lakes[0].create_table("t", people.schema)
    barrier = threading.Barrier(2)
    failures: list[BaseException] = []

    def load(lake: Lake) -> None:
        try:
            for version in range(5):
                barrier.wait(timeout=30)
                lake.write("t", people, app_transaction=("loader", version))
        except BaseException as e:
            failures.append(e)
            barrier.abort()
            raise

    threads = [threading.Thread(target=load, args=(lake,)) for lake in lakes]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failures
    assert lakes[0].table("t").version() == 5
    assert lakes[0].sql("SELECT count(*) FROM t").fetchall() == [(15,)]


# --- frames


def frames(people: pa.Table) -> dict[str, Any]:
    return {
        "pyarrow table": people,
        "pyarrow reader": people.to_reader(),
        "pyarrow batch": people.to_batches()[0],
        "polars frame": pl.from_arrow(people),
        "polars lazy frame": pl.from_arrow(people).lazy().filter(pl.col("id") > 0),  # type: ignore[union-attr]
        "pandas frame": pd.DataFrame({"id": [1, 2, 3], "name": ["Ada", "Bo", None]}),
        "list of dicts": people.to_pylist(),
        "dict of lists": people.to_pydict(),
        "sql": "SELECT * FROM (VALUES (1, 'Ada'), (2, 'Bo'), (3, NULL)) v(id, name)",
        "sql over a local frame": "SELECT * FROM local_frame",
    }


@pytest.mark.parametrize("kind", frames(pa.table({"id": [1], "name": ["a"]})))
def test_every_kind_of_frame(lake: Lake, people: pa.Table, kind: str) -> None:
    local_frame = people  # noqa: F841 - found by name from SQL
    lake.write("t", frames(people)[kind])
    assert lake.sql("SELECT CAST(id AS BIGINT), name FROM t ORDER BY id").fetchall() == [(1, "Ada"), (2, "Bo"), (3, None)]


def test_a_relation_of_another_duckdb(lake: Lake) -> None:
    with duckdb.connect() as con:
        lake.write("t", con.sql("SELECT range AS n FROM range(10)"))
    assert lake.sql("SELECT sum(n) FROM t").fetchall() == [(45,)]


def test_a_relation_of_the_lake_itself(lake: Lake, people: pa.Table) -> None:
    lake.write("a", people)
    lake.write("b", lake.sql("SELECT id * 2 AS id FROM a"))
    assert lake.sql("SELECT sum(id) FROM b").fetchall() == [(12,)]


def test_a_relation_of_the_lake_in_its_statements(lake: Lake, people: pa.Table) -> None:
    """The connection that reads it runs the statement, too."""
    lake.write("a", people)
    lake.create_table("b", people.schema)
    rel = lake.sql("SELECT id + 10 AS id, name FROM a")
    assert lake.sql("SELECT count(*), sum(rel.id) FROM rel JOIN rel AS again USING (id)").fetchall() == [(3, 36)]
    lake.sql("INSERT INTO b SELECT * FROM rel")
    lake.sql("MERGE INTO b USING rel ON b.id = rel.id WHEN MATCHED THEN UPDATE SET name = 'met' WHEN NOT MATCHED THEN INSERT *")
    assert (
        lake.table("b").merge(rel, "source.id = target.id").when_matched_delete("source.id = 11").execute()["num_source_rows"]
        == 3
    )
    lake.sql("UPDATE b SET id = rel.id + 10 FROM rel WHERE b.id = rel.id AND rel.id = 12; CREATE TABLE c AS FROM rel")
    assert lake.sql("SELECT id, name FROM b ORDER BY id").fetchall() == [(13, "met"), (22, "met")]
    assert lake.table("c").count() == 3


def test_a_stream_is_read_as_it_comes(lake: Lake) -> None:
    taken = []

    def batches() -> Any:
        for n in range(20):
            taken.append(n)
            yield pa.record_batch({"n": np.arange(n * 1000, (n + 1) * 1000)})

    lake.write("t", pa.RecordBatchReader.from_batches(pa.schema({"n": pa.int64()}), batches()))
    assert taken == list(range(20))
    assert lake.sql("SELECT count(*), sum(n) FROM t").fetchall() == [(20_000, sum(range(20_000)))]


def test_a_stream_that_breaks_leaves_nothing(lake: Lake, people: pa.Table) -> None:
    lake.write("t", people)

    def batches() -> Any:
        yield people.to_batches()[0]
        raise OSError("the source went away")

    with pytest.raises(Exception, match="the source went away"):
        lake.write("t", pa.RecordBatchReader.from_batches(people.schema, batches()))
    assert lake.table("t").version() == 0
    assert lake.table("t").to_arrow() == people


def test_sql_that_reads_the_table_it_writes(lake: Lake, people: pa.Table) -> None:
    lake.write("t", people)
    lake.write("t", "SELECT id + 10 AS id, name FROM t", mode="overwrite")
    assert lake.sql("SELECT id FROM t ORDER BY id").fetchall() == [(11,), (12,), (13,)]


@pytest.mark.parametrize("frame", [42, None, [], [1, 2], {}, object(), b"bytes"])
def test_what_is_no_frame(lake: Lake, frame: Any) -> None:
    with pytest.raises(SchemaMismatchError, match=f"cannot write a {type(frame).__name__}"):
        lake.write("t", frame)
    assert lake.tables() == []


@pytest.mark.parametrize("query", ["SELEC 1", "SELECT * FROM nowhere", "CREATE TEMP TABLE x (a INT)"])
def test_sql_that_gives_no_rows(lake: Lake, query: str) -> None:
    with pytest.raises(DeltaduckError):
        lake.write("t", query)
    assert lake.tables() == []


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (pa.table({"n": [1], "h": pa.array([1.5], pa.float16())}), "column 'h' is of type halffloat, which Delta does not have"),
        (pa.table({"d": pa.array([Decimal(1)], pa.decimal256(40, 2))}), r"column 'd' is of type decimal256\(40, 2\)"),
        (pa.table({"t": pa.array([0], pa.time32("s"))}), "column 't' is of type TIME"),
        (pa.table({}), "at least one column"),
        (pd.DataFrame(), "at least one column"),
        (pl.DataFrame({"o": pl.Series([object()], dtype=pl.Object)}), "column 'o' holds Python objects"),
        (pd.DataFrame({"a": [1, "x"]}), "a DataFrame cannot be read as rows: .*'x'"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "a DataFrame cannot be read as rows: .*'a'"),
        (pl.Series("a", [1, 2]), "a Series cannot be read as rows"),
        ({"a": [1], "b": [1, 2]}, "a dict cannot be read as rows"),
        (pa.Table.from_arrays([pa.array([1])] * 2, names=["a", "a"]), "columns 'a' stand more than once"),
        (pa.table({"": [1]}), "a column has an empty name"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,  # some frames show addresses
)
def test_frames_that_delta_cannot_hold(lake: Lake, frame: Any, says: str) -> None:
    with pytest.raises(SchemaMismatchError, match=says):
        lake.write("t", frame)
    assert lake.tables() == []


def test_schemas_that_delta_cannot_hold(lake: Lake) -> None:
    for kind in (pa.float16(), pa.decimal256(40, 2), pa.time32("s"), pa.null()):
        with pytest.raises(SchemaMismatchError, match="column 'h'"):
            lake.create_table("t", pa.schema({"n": pa.int64(), "h": kind}))
    with pytest.raises(SchemaMismatchError, match="columns 'a' stand more than once"):
        lake.create_table("t", pa.schema([("a", pa.int64()), ("a", pa.int64())]))
    assert lake.tables() == []


def test_dicts_need_not_have_the_same_keys(lake: Lake) -> None:
    lake.write("t", [{"a": 1}, {"b": "x", "a": None}, {}])
    assert lake.table("t").to_arrow().to_pydict() == {"a": [1, None, None], "b": [None, "x", None]}


def test_nanoseconds_with_a_zone(lake: Lake) -> None:
    """What pandas has by itself."""
    times = pa.array([1_704_067_200_123_456_000, None], pa.timestamp("ns", "Europe/Berlin"))
    lake.write("t", pa.table({"t": times, "l": [[times[0]], None]}, pa.schema({"t": times.type, "l": pa.list_(times.type)})))
    assert lake.table("t").to_arrow()["t"].to_pylist() == times.cast(pa.timestamp("us", "UTC")).to_pylist()
    assert lake.table("t").to_arrow().schema.field("l").type.value_type == pa.timestamp("us", "UTC")


def test_a_pandas_index_that_has_a_name_is_a_column(lake: Lake) -> None:
    plain = pd.DataFrame({"n": [1, 2]}, index=[7, 8])
    lake.write("plain", plain)
    assert lake.table("plain").to_arrow().to_pydict() == {"n": [1, 2]}
    lake.write("named", plain.rename_axis("k"))
    assert lake.table("named").to_arrow().to_pydict() == {"n": [1, 2], "k": [7, 8]}
    half = plain.set_index(pd.MultiIndex.from_tuples([(1, 2), (3, 4)], names=["a", None]))
    lake.write("half", half)
    assert lake.table("half").to_arrow().to_pydict() == {"n": [1, 2], "a": [1, 3]}


def test_columns_named_twice_are_refused(lake: Lake) -> None:
    with pytest.raises((SchemaMismatchError, QueryError), match="a"):
        lake.write("t", "SELECT 1 AS a, 2 AS A")
    assert lake.tables() == []
