"""Every version of every kind of table reads the same, for us and for everybody else, from the mirrored log alone."""

from __future__ import annotations

import datetime as dt
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest

import deltaduck
from deltaduck import Lake

Read = Callable[[str, int | None], pa.Table]
AsText = Callable[[pa.Table], list[str]]

UTC = dt.UTC
TIMES = [
    dt.datetime(2024, 2, 29, 12, 30, 15, 123_456), dt.datetime(1969, 12, 31, 23, 59, 59, 999_999), dt.datetime(1900, 1, 1),
    dt.datetime(2262, 4, 11, 23, 47, 16, 854_775),
]  # fmt: skip
PRIMITIVES = pa.schema(
    {
        "flag": pa.bool_(), "tiny": pa.int8(), "small": pa.int16(), "int": pa.int32(), "big": pa.int64(), "real": pa.float32(),
        "number": pa.float64(), "price": pa.decimal128(9, 2), "wide": pa.decimal128(38, 18), "text": pa.string(),
        "bytes": pa.binary(), "day": pa.date32(), "at": pa.timestamp("us", tz="UTC"), "local": pa.timestamp("us"),
    }
)  # fmt: skip
ROWS = [
    [True, -128, -(2**15), -(2**31), -(2**63), -1.5, -1e300, Decimal("-9999999.99"), Decimal("-1.000000000000000001"), "", b"",
     dt.date(1900, 1, 1), TIMES[2].replace(tzinfo=UTC), TIMES[2]],
    [False, 127, 2**15 - 1, 2**31 - 1, 2**63 - 1, 0.1, 0.1, Decimal("0.01"), Decimal("12345678901234567890.5"),
      "日本 🦆 'q' \"d\" \\ %",
     b"\x00\xff'", dt.date(2024, 2, 29), TIMES[0].replace(tzinfo=UTC), TIMES[0]],
    [None] * 14,
    [True, 0, 0, 0, 0, float("nan"), float("nan"), Decimal("0"), Decimal("0"), "x" * 100, b"x" * 100, dt.date(1970, 1, 1),
     TIMES[1].replace(tzinfo=UTC), TIMES[1]],
    [False, 1, 1, 1, 1, float("inf"), float("-inf"), Decimal("1"), Decimal("1"), "\U0010ffff" * 40, b"\n", dt.date(2262, 4, 11),
     TIMES[3].replace(tzinfo=UTC), TIMES[3]],
]  # fmt: skip


def primitives(rows: list[list[object]] = ROWS) -> pa.Table:
    return pa.Table.from_pylist([dict(zip(PRIMITIVES.names, row, strict=True)) for row in rows], schema=PRIMITIVES)


def every_primitive(lake: Lake, name: str) -> None:
    lake.create_table(name, PRIMITIVES)
    for row in ROWS:
        lake.write(name, primitives([row]))
    lake.write(name, primitives(), mode="overwrite")


def every_primitive_as_partition(lake: Lake, name: str) -> None:
    """Binary apart, which has no form in a path that every reader knows."""
    by = [c for c in PRIMITIVES.names if c not in ("bytes", "real", "number")]
    lake.write(name, primitives([ROWS[1], ROWS[2], ROWS[3]]), partition_by=by)
    lake.write(name, primitives([[abs(v) if isinstance(v, Decimal) else v for v in ROWS[0]]]))


def negative_decimal_as_partition(lake: Lake, name: str) -> None:
    lake.write(name, pa.table({"p": [Decimal("-9.99"), Decimal("-0.01"), Decimal("2.50")], "n": [1, 2, 3]}), partition_by="p")


def floats_as_partition(lake: Lake, name: str) -> None:
    rows = pa.table({"p": [0.5, -1e300, 0.1, None], "q": pa.array([0.1, -2.5, None, 3e38], pa.float32()), "n": [1, 2, 3, 4]})
    lake.write(name, rows, partition_by=["p", "q"])


def nan_as_partition(lake: Lake, name: str) -> None:
    rows = pa.table({"p": [float("nan"), float("inf"), float("-inf"), 1.0], "n": [1, 2, 3, 4]})
    lake.write(name, rows, partition_by="p")


def times_as_partition(lake: Lake, name: str) -> None:
    rows = {"at": [*(t.replace(tzinfo=UTC) for t in TIMES), None], "local": [*TIMES, None], "n": [1, 2, 3, 4, 5]}
    schema = pa.schema({"at": pa.timestamp("us", tz="UTC"), "local": pa.timestamp("us"), "n": pa.int64()})
    lake.write(name, pa.table(rows, schema=schema), partition_by=["at", "local"])
    lake.table(name).delete("n = 2")


def nested(lake: Lake, name: str) -> None:
    point = pa.struct({"x": pa.int32(), "y": pa.struct({"z": pa.string(), "w": pa.list_(pa.float64())})})
    schema = pa.schema(
        {
            "id": pa.int64(),
            "s": point,
            "l": pa.list_(point),
            "m": pa.map_(pa.string(), pa.int64()),
            "ll": pa.list_(pa.list_(pa.date32())),
        }
    )
    rows = [
        {
            "id": 1,
            "s": {"x": 1, "y": {"z": "a", "w": [1.5, None]}},
            "l": [],
            "m": [("a", 1), ("b", None)],
            "ll": [[], None, [dt.date(2024, 1, 1)]],
        },
        {"id": 2, "s": None, "l": None, "m": None, "ll": None},
        {"id": 3, "s": {"x": None, "y": None}, "l": [None, {"x": 2, "y": {"z": None, "w": []}}], "m": [], "ll": []},
    ]
    for row in rows:
        lake.write(name, pa.Table.from_pylist([row], schema=schema))
    lake.write(name, pa.table({"id": [4], "s": pa.array([{"new": 5}])}), schema_mode="merge")


def odd_names_and_values(lake: Lake, name: str) -> None:
    values = ["a b", "50%", "a/b", "../up", "k=v", "it's", 'say "hi"', "back\\slash", "ünï", "日本", "🦆", "?#&", ":", "+",
      "%2F", "~", ".", "..", "a\nb",
              "{}", "[x]", "null", None, ""]  # fmt: skip
    columns = ['q"q', "it's", "semi;colon", "ü b", "select", "a/b", "50%", "Upper", "a.b"]
    rows: dict[str, object] = {"p": values} | {c: list(range(len(values))) for c in columns}
    lake.write(name, pa.table(rows), partition_by="p")
    lake.table(name).delete("\"a.b\" = 3 OR p = '日本'")
    lake.table(name).update({"it's": "-1"}, predicate="p IS NULL")


def odd_partition_columns(lake: Lake, name: str) -> None:
    by = ["p q", "ü", "a/b=c%", "it's"]
    lake.write(name, pa.table({c: ["1", "x y"] for c in by} | {"n": [1, 2]}), partition_by=by)


def rewritten(lake: Lake, name: str) -> None:
    """Every way to change a table, one version each."""
    lake.write(name, pa.table({"k": [1, 2, 3, 4], "g": ["a", "a", "b", None], "v": [1.0, None, 3.0, 4.0]}), partition_by="g")
    lake.write(name, pa.table({"k": [5], "g": ["c"], "v": [5.0]}))
    lake.table(name).delete("k = 2")
    lake.table(name).update({"v": "v * 10", "g": "'moved'"}, predicate="k = 3")
    lake.write(name, pa.table({"k": [10, 11], "g": ["a", "a"], "v": [0.5, 0.25]}), mode="overwrite", predicate="g = 'a'")
    lake.write(name, pa.table({"k": [12], "g": ["a"], "v": [1.5], "extra": ["new"]}), schema_mode="merge")
    lake.write(
        name,
        pa.table(
            {"k": [13], "v": [1.5], "extra": [None]}, schema=pa.schema({"k": pa.int64(), "v": pa.float64(), "extra": pa.string()})
        ),
    )
    lake.table(name).delete()
    lake.write(
        name,
        pa.table({"k": ["now text"], "when": [dt.datetime(2024, 1, 1)]}),
        mode="overwrite",
        schema_mode="overwrite",
        partition_by=[],
    )
    lake.write(
        name,
        pa.table({"k": ["more"], "when": [dt.datetime(2024, 1, 2)]}),
        mode="overwrite",
        schema_mode="overwrite",
        partition_by=["k"],
    )
    lake.sql(f"INSERT INTO {name} VALUES ('sql', TIMESTAMP '2024-01-03 00:00:00')")
    lake.sql(f"UPDATE {name} SET \"when\" = NULL WHERE k = 'sql'")


def gains_ntz(lake: Lake, name: str) -> None:
    """The first timestamp without a zone raises the table's protocol."""
    lake.write(name, pa.table({"n": [1]}))
    lake.write(name, pa.table({"n": [2], "local": [dt.datetime(2024, 1, 1)]}), schema_mode="merge")


def many_commits(lake: Lake, name: str) -> None:
    """Past two checkpoints, with properties, application transactions and removed files on the way."""
    properties = {"delta.logRetentionDuration": "interval 30 days", "team": "ducks", "delta.dataSkippingNumIndexedCols": "2"}
    lake.write(
        name, pa.table({"n": [0], "g": ["g0"], "t": ["x" * 50]}), partition_by="g", configuration=properties, description="Ducks"
    )
    for n in range(1, 27):
        if n % 7 == 0:
            lake.table(name).delete(f"n = {n - 1}")
        elif n % 11 == 0:
            lake.write(name, pa.table({"n": [n], "g": ["g1"], "t": [None]}, schema=pa.schema({"n": pa.int64(),
              "g": pa.string(), "t": pa.string()})),
                       mode="overwrite", predicate="g = 'g1'")  # fmt: skip
        else:
            lake.write(
                name,
                pa.table({"n": [n], "g": [f"g{n % 3}"], "t": [str(n)]}),
                app_transaction=("ingest", n),
                commit_metadata=f"batch {n}",
            )


def created_empty(lake: Lake, name: str) -> None:
    lake.create_table(name, {"a": "INTEGER NOT NULL", "b": "STRUCT(c VARCHAR)", "d": "DATE"}, partition_by="d")
    lake.write(name, pa.Table.from_pylist([], schema=pa.schema({"a": pa.int32(), "d": pa.date32()})))


def measured_again(lake: Lake, name: str) -> None:
    """Files that are added again, with statistics, by a commit that removes none."""
    lake.write(
        name, pa.table({"n": [1, 2], "g": ["a", "b"]}), partition_by="g", configuration={"delta.dataSkippingNumIndexedCols": "0"}
    )
    lake.write(name, pa.table({"n": [3], "g": ["a"]}))
    lake.sql(f"ALTER TABLE {name} UNSET TBLPROPERTIES ('delta.dataSkippingNumIndexedCols')")
    lake.sql(f"ANALYZE TABLE {name} COMPUTE DELTA STATISTICS")
    lake.sql(f"DELETE FROM {name} WHERE n = 1")


def second_version_of_parquet(lake: Lake, name: str) -> None:
    """Whole numbers as differences, texts after their lengths: in every type that is made of them, with gaps and extremes."""
    kinds = pa.schema([f for f in PRIMITIVES if f.name not in ("int", "real", "number", "day")])  # without a second version
    lake.create_table(name, kinds, configuration={"delta.parquet.format.version": "2.12.0"})
    lake.write(name, primitives().select(kinds.names))
    lake.sql(
        f"INSERT INTO {name} BY NAME SELECT i % 3 = 0 AS flag, i % 100 AS tiny, i % 30000 AS small, "
        "(hash(i) // 4)::BIGINT AS big, i * 0.37 AS price, i * 0.37 AS wide, md5(i::VARCHAR) AS text, "
        "encode(md5(i::VARCHAR)) AS bytes, make_timestamp(i * 123456789) AS local "
        "FROM range(4000) r(i)"
    )
    lake.sql(f"UPDATE {name} SET text = NULL, big = NULL, small = small - 1 WHERE small % 3 = 0")
    lake.write(
        name,
        pa.table({"l": [[1, None, 2**62], [], None], "m": pa.array([[("a", 1)], [], None], pa.map_(pa.string(), pa.int64()))}),
        schema_mode="merge",
    )


BUILDERS = [
    every_primitive, every_primitive_as_partition, negative_decimal_as_partition, floats_as_partition, nan_as_partition,
    times_as_partition, nested, odd_names_and_values, odd_partition_columns, rewritten, gains_ntz, many_commits, created_empty,
    measured_again, second_version_of_parquet,
]  # fmt: skip


# What a reader cannot do, whoever wrote the table.
CANNOT = {
    ("delta-rs-arrow", "negative_decimal_as_partition"): "delta-rs hands pyarrow the partition value -9.99 as -9.-99",
    ("polars", "odd_partition_columns"): "Polars takes partition columns from the path, where DuckDB percent-encodes their names",
}


@dataclass
class Mirrored:
    """A lake whose tables are built when first asked for, and never changed afterwards."""

    lake: Lake
    built: set[str] = field(default_factory=set)

    def table(self, name: str) -> deltaduck.DeltaTable:
        if name not in self.built:
            globals()[name](self.lake, name)
            self.built.add(name)
        return self.lake.table(name)

    def path(self, name: str) -> str:
        return str(self.table(name).detail()["location"])


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mirrored]:
    with deltaduck.connect(tmp_path_factory.mktemp("interop") / "lake.duckdb") as lake:
        yield Mirrored(lake)


@pytest.mark.parametrize("name", [b.__name__ for b in BUILDERS])
def test_every_version_reads_the_same(
    request: pytest.FixtureRequest, mirrored: Mirrored, reader: Read, as_text: AsText, name: str
) -> None:
    if reason := CANNOT.get((request.node.callspec.params["reader"], name)):
        request.applymarker(pytest.mark.xfail(strict=True, reason=reason))
    table = mirrored.table(name)
    for version in range(table.version() + 1):
        ours = table.as_of(version).to_arrow()
        theirs = reader(mirrored.path(name), version)
        assert set(theirs.column_names) == set(ours.column_names), f"version {version}"
        assert as_text(theirs) == as_text(ours), f"version {version}"
    assert as_text(reader(mirrored.path(name), None)) == as_text(table.to_arrow())


@pytest.mark.parametrize("name", [b.__name__ for b in BUILDERS])
def test_the_mirror_verifies(mirrored: Mirrored, name: str) -> None:
    mirrored.table(name)
    assert mirrored.lake.mirror.verify(name), mirrored.lake.mirror.verify(name)


@pytest.mark.parametrize("checkpoint", [10, 20])
def test_a_checkpoint_stands_for_the_commits_before_it(
    mirrored: Mirrored, reader: Read, as_text: AsText, tmp_path: Path, checkpoint: int
) -> None:
    table, copy = mirrored.table("many_commits"), tmp_path / "copy"
    shutil.copytree(mirrored.path("many_commits"), copy)
    for version in range(checkpoint):
        (copy / "_delta_log" / f"{version:020d}.json").unlink()
    for version in range(checkpoint, table.version() + 1):
        assert as_text(reader(str(copy), version)) == as_text(table.as_of(version).to_arrow()), f"version {version}"


def test_a_checkpoint_alone_is_a_table(mirrored: Mirrored, reader: Read, as_text: AsText, tmp_path: Path) -> None:
    table, copy = mirrored.table("many_commits"), tmp_path / "copy"
    shutil.copytree(mirrored.path("many_commits"), copy)
    for commit in (copy / "_delta_log").glob("*.json"):
        if int(commit.stem) != 20:  # the commit of the checkpoint's own version says when it was
            commit.unlink()
    assert as_text(reader(str(copy), None)) == as_text(table.as_of(20).to_arrow())


@pytest.fixture(scope="module")
def slow_table(tmp_path_factory: pytest.TempPathFactory) -> Iterator[deltaduck.DeltaTable]:
    """Versions some milliseconds apart."""
    with deltaduck.connect(tmp_path_factory.mktemp("times") / "lake.duckdb") as lake:
        for n in range(12):
            lake.write("t", pa.table({"n": [n]}))
            time.sleep(0.004)
        yield lake.table("t")


def test_travel_by_timestamp_agrees_with_delta_rs(slow_table: deltaduck.DeltaTable) -> None:
    from deltalake import DeltaTable

    path = slow_table.detail()["location"]
    for commit in slow_table.history():
        for moment in (commit["committed"], commit["committed"] + dt.timedelta(milliseconds=1)):
            theirs = DeltaTable(path)
            theirs.load_as_version(moment)
            assert theirs.version() == slow_table.as_of(timestamp=moment).version() >= commit["version"]


def test_travel_by_timestamp_agrees_with_polars(slow_table: deltaduck.DeltaTable) -> None:
    import polars as pl

    for commit in slow_table.history():
        theirs = pl.read_delta(slow_table.detail()["location"], version=commit["committed"])
        assert sorted(theirs["n"]) == list(range(commit["version"] + 1))
