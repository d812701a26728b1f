"""Reading what others wrote: deletion vectors, column mapping, widened types, change data, foreign statistics."""

from __future__ import annotations

import datetime as dt
import json
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import deltalake
import duckdb
import handmade as h
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import deltaduck
from deltaduck import DeltaduckError, Lake, LogCorruptError, UnsupportedFeatureError, VersionNotFoundError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:deltalake")
ID, NAME = h.field("id", "long"), h.field("name", "string")
ROWS = pa.table({"id": pa.array(range(6), pa.int64()), "name": list("abcdef")})


def ids(lake: Lake, where: str = "true") -> list[int]:
    return [row[0] for row in lake.sql(f"SELECT id FROM t WHERE {where} ORDER BY id").fetchall()]


def changes(lake: Lake, *versions: int) -> list[tuple[Any, ...]]:
    columns = "id, _change_type, _commit_version"
    return sorted(lake.table("t").changes(*versions).project(columns).fetchall(), key=lambda row: (row[2], row[1], row[0]))


# --- what files lack


def test_null_where_the_schema_says_not_null(lake: Lake, tmp_path: Path) -> None:
    path = tmp_path / "t"
    rows = ROWS.slice(0, 2).append_column("s", pa.array([{"x": None}, None], pa.struct({"x": pa.int64()})))
    inside = h.struct_of(h.field("x", "long", nullable=False), h.field("nothing", "void"))
    fields = ID, h.field("s", inside), h.field("absent", "string", nullable=False), h.field("nothing", "void")
    h.commit(path, 0, h.protocol(), h.metadata(*fields), h.add(path, "a.parquet", rows))
    lake.import_table(path)
    assert lake.table("t").to_arrow().to_pylist() == [
        {"id": 0, "s": {"x": None, "nothing": None}, "absent": None, "nothing": None},
        {"id": 1, "s": None, "absent": None, "nothing": None},
    ]
    assert lake.table("t").to_arrow(["absent"]).to_pydict() == {"absent": [None, None]}
    assert lake.table("t").to_polars()["absent"].null_count() == 2


def test_text_that_a_file_does_not_mark_as_text(lake: Lake, tmp_path: Path) -> None:
    path = tmp_path / "t"
    words = pa.array(["é".encode(), b"plain", None])
    rows = pa.table({"w": words, "l": pa.array([["ü".encode()], [], None]), "s": pa.StructArray.from_arrays([words], ["x"])})
    fields = h.field("w", "string"), h.field("l", {"type": "array", "elementType": "string"})
    schema = h.metadata(*fields, h.field("s", h.struct_of(h.field("x", "string"))))
    h.commit(path, 0, h.protocol(), schema, h.add(path, "a.parquet", rows))
    lake.import_table(path)
    assert lake.table("t").to_arrow().to_pydict() == {
        "w": ["é", "plain", None], "l": [["ü"], [], None], "s": [{"x": "é"}, {"x": "plain"}, {"x": None}],
    }  # fmt: skip
    assert lake.sql("SELECT count(*) FROM t WHERE w = 'é'").fetchall() == [(1,)]


# --- timestamps


MOMENTS = [dt.datetime(2024, 3, 10, 2, 30, 0, 123456), dt.datetime(2024, 11, 3, 6, 30), dt.datetime(1950, 1, 1),
           dt.datetime(9999, 12, 31, 23, 59, 59), None]  # fmt: skip


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine that is not in UTC: MOMENTS has times that its clocks leave out, and show twice."""
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize("kinds", [["int96"], ["int96", "zoned"], ["zoneless"], ["zoneless", "int96", "zoned"]])
def test_timestamps_are_in_utc_whatever_zone_a_session_has(elsewhere: None, lake: Lake, tmp_path: Path, kinds: list[str]) -> None:
    path = tmp_path / "t"
    path.mkdir()
    for kind in kinds:
        at = pa.array(MOMENTS, pa.timestamp("us", tz="UTC" if kind == "zoned" else None))
        rows = pa.table(
            {"t": at, "l": pa.ListArray.from_arrays(list(range(len(at) + 1)), at), "s": pa.StructArray.from_arrays([at], ["x"])}
        )
        pq.write_table(rows, path / f"{kind}.parquet", use_deprecated_int96_timestamps=kind == "int96")
    fields = h.field("t", "timestamp"), h.field("l", {"type": "array", "elementType": "timestamp"})
    schema = h.metadata(*fields, h.field("s", h.struct_of(h.field("x", "timestamp"))))
    h.commit(path, 0, h.protocol(), schema, *(h.add(path, f"{kind}.parquet") for kind in kinds))
    lake.import_table(path, name="t")
    micros = "SELECT epoch_us(t), epoch_us(l[1]), epoch_us(s.x) FROM {} ORDER BY ALL"
    expected = pa.array([m for m in MOMENTS for _ in kinds], pa.timestamp("us")).cast(pa.int64()).to_pylist()
    expected = [(m,) * 3 for m in sorted(expected, key=lambda m: (m is None, m))]
    assert lake.sql(micros.format("t")).fetchall() == expected
    assert lake.table("t").to_arrow()["t"].cast(pa.int64()).sort().to_pylist() == [m for m, _, _ in expected]
    dataset = lake.table("t").to_pyarrow_dataset().to_table(["t"])["t"]
    assert dataset.cast(pa.int64()).sort().to_pylist() == [m for m, _, _ in expected]
    assert {row[0] for row in lake.table("t").changes().project("epoch_us(t)").fetchall()} == {m for m, _, _ in expected}
    con = duckdb.connect()
    deltaduck.register(con, lake)
    con.execute("SET TimeZone = 'Asia/Kolkata'")
    assert con.sql(micros.format("dl_scan('t')")).fetchall() == expected
    if lake.catalog.database == "duckdb":
        view = lake.catalog.engine()
        view.execute("SET TimeZone = 'Asia/Kolkata'")
        assert view.sql(micros.format("t")).fetchall() == expected
    lake.write("t", lake.table("t").to_arrow(), mode="append")
    assert lake.sql(micros.format("t")).fetchall() == sorted(expected * 2, key=lambda row: (row[0] is None, row))


# --- deletion vectors


@pytest.fixture
def vectors(tmp_path: Path) -> Path:
    """One file, six rows: version 1 hides 1 and 4 (inline), version 2 hides 5 too (in a file), and adds a second file."""
    path = tmp_path / "t"
    first = h.add(path, "a.parquet", ROWS)
    inline = {"add": {**first["add"], "deletionVector": h.inline_vector([1, 4])}}
    in_file, other = h.vector_file(path, [1, 4, 5], [0], prefix="xy")
    h.commit(path, 0, h.protocol(3, 7, "deletionVectors"), h.metadata(ID, NAME, enableDeletionVectors="true"), first)
    h.commit(path, 1, h.remove("a.parquet"), inline)
    second = h.add(path, "b.parquet", ROWS.slice(0, 2), deletionVector=other)
    both = {"add": {**first["add"], "deletionVector": in_file}}
    h.commit(path, 2, h.remove("a.parquet", deletionVector=inline["add"]["deletionVector"]), both, second)
    return path


def test_rows_that_vectors_hide(lake: Lake, vectors: Path) -> None:
    lake.import_table(vectors)
    assert ids(lake) == [0, 1, 2, 3]
    assert [row[0] for row in lake.sql("SELECT id FROM t AT (VERSION => 1) ORDER BY id").fetchall()] == [0, 2, 3, 5]
    assert lake.sql("SELECT count(*) FROM t AT (VERSION => 0)").fetchall() == [(6,)]
    assert ids(lake, "id >= 1") == [1, 2, 3]
    assert lake.table("t").to_arrow(["id"], filter="name = 'b'").to_pydict() == {"id": [1]}


def test_changes_from_vectors(lake: Lake, vectors: Path) -> None:
    lake.import_table(vectors)
    assert changes(lake, 1, 1) == [(1, "delete", 1), (4, "delete", 1)]
    assert changes(lake, 2) == [(5, "delete", 2), (1, "insert", 2)]
    assert len(changes(lake)) == 6 + 2 + 2


@pytest.mark.parametrize("harm", ["gone", "cut", "damaged", "miscounted"])
def test_a_damaged_vector_is_never_read_as_none(lake: Lake, vectors: Path, harm: str) -> None:
    (file,) = vectors.glob("xy/*.bin")
    data = file.read_bytes()
    match harm:
        case "gone":
            file.unlink()
        case "cut":
            file.write_bytes(data[:20])
        case "damaged":
            file.write_bytes(data[:20] + b"\xff\xff" + data[22:])
        case "miscounted":
            log = vectors / "_delta_log" / f"{2:020d}.json"
            log.write_text(log.read_text().replace('"cardinality": 3', '"cardinality": 2'))
    lake.import_table(vectors)
    with pytest.raises(LogCorruptError):
        lake.table("t").to_arrow()
    assert lake.table("t").as_of(1).to_arrow().num_rows == 4


def test_a_vector_at_an_absolute_path(lake: Lake, tmp_path: Path) -> None:
    path = tmp_path / "t"
    (vector,) = h.vector_file(tmp_path / "else where", [0, 1, 2], absolute=True)
    h.commit(
        path, 0, h.protocol(3, 7, "deletionVectors"), h.metadata(ID, NAME), h.add(path, "a.parquet", ROWS, deletionVector=vector)
    )
    lake.import_table(path)
    assert ids(lake) == [3, 4, 5]


# --- column mapping


@pytest.mark.parametrize("mode", ["name", "id"])
def test_mapped_columns_at_every_depth(lake: Lake, tmp_path: Path, mode: str) -> None:
    path = tmp_path / "t"
    inner = h.struct_of(h.field("x", "long", physical="p-x", mapped_id=5), h.field("y z", "string", physical="p-y", mapped_id=6))
    fields = [
        h.field("id", "long", physical="col-1", mapped_id=1),
        h.field("day", "string", physical="col-2", mapped_id=2),
        h.field("s", inner, physical="col-3", mapped_id=3),
        h.field("l", {"type": "array", "elementType": inner, "containsNull": True}, physical="col-4", mapped_id=4),
        h.field(
            "m",
            {"type": "map", "keyType": "string", "valueType": inner, "valueContainsNull": True},
            physical="col-7",
            mapped_id=7,
        ),
    ]
    stored = pa.struct(
        [
            pa.field("p-x", pa.int64(), metadata={"PARQUET:field_id": "5"}),
            pa.field("p-y", pa.string(), metadata={"PARQUET:field_id": "6"}),
        ]
    )
    one = {"p-x": 1, "p-y": "a"}
    columns = {
        "col-1": (pa.int64(), [1, 2], 1),
        "col-3": (stored, [one, None], 3),
        "col-4": (pa.list_(stored), [[one, None], None], 4),
        "col-7": (pa.map_(pa.string(), stored), [[("k", one)], []], 7),
    }
    schema = pa.schema([pa.field(n, t, metadata={"PARQUET:field_id": str(i)}) for n, (t, _, i) in columns.items()])
    rows = pa.table([pa.array(v, t) for t, v, _ in columns.values()], schema=schema)
    stats = json.dumps({"numRecords": 2, "minValues": {"col-1": 1}, "maxValues": {"col-1": 2}, "nullCount": {"col-1": 0}})
    h.commit(
        path,
        0,
        h.protocol(2, 5),
        h.metadata(*fields, partition_by=["day"], columnMapping__mode=mode),
        h.add(path, "ab/one.parquet", rows, partition={"col-2": "mon"}, stats=stats),
        h.add(path, "cd/two.parquet", rows, partition={"col-2": None}, stats=stats),
    )
    lake.import_table(path)
    full = {"x": 1, "y z": "a"}
    found = lake.sql("SELECT id, day, s, l, m FROM t ORDER BY day, id").fetchall()
    assert found[:2] == [(1, "mon", full, [full, None], {"k": full}), (2, "mon", None, None, {})]
    assert lake.sql("SELECT id FROM t WHERE day = 'mon' AND id > 1 AND s IS NULL").fetchall() == [(2,)]
    assert lake.table("t").files("id > 2").num_rows == 0  # statistics are under the physical names
    assert lake.table("t").files("day = 'mon'").num_rows == 1
    assert lake.sql('SELECT s."y z" FROM t WHERE s.x = 1 AND day IS NULL').fetchall() == [("a",)]
    assert len(changes(lake)) == 4


def test_members_go_by_their_ids_whatever_a_file_calls_them(lake: Lake, tmp_path: Path) -> None:
    """Files of three writers: one uses the physical names, one has names of its own, one has no ids and so no values."""
    path = tmp_path / "t"
    inner = h.struct_of(h.field("x", "long", physical="p-x", mapped_id=5), h.field("y", "long", physical="p-y", mapped_id=6))
    listed = {"type": "array", "elementType": inner, "containsNull": True}
    fields = [
        h.field("id", "long", physical="col-1", mapped_id=1),
        h.field("s", inner, physical="col-3", mapped_id=3),
        h.field("l", listed, physical="col-4", mapped_id=4),
    ]

    def stored(names: list[str], x: str, y: str, *, marked: bool = True) -> pa.Table:
        def field(name: str, kind: pa.DataType, number: int) -> pa.Field:
            return pa.field(name, kind, metadata={"PARQUET:field_id": str(number)} if marked else None)

        kind = pa.struct([field(x, pa.int64(), 5), field(y, pa.int64(), 6)])
        values = [1], [{x: 10, y: 20}], [[{x: 30, y: 40}, None]]
        kinds = [(pa.int64(), 1), (kind, 3), (pa.list_(kind), 4)]
        columns = [pa.array(v, k) for v, (k, _) in zip(values, kinds, strict=True)]
        return pa.table(columns, schema=pa.schema([pa.field(n, k, metadata={"PARQUET:field_id": str(i)})
                                                   for n, (k, i) in zip(names, kinds, strict=True)]))  # fmt: skip

    h.commit(
        path, 0, h.protocol(2, 5), h.metadata(*fields, columnMapping__mode="id"),
        h.add(path, "a.parquet", stored(["col-1", "col-3", "col-4"], "p-x", "p-y")),
        h.add(path, "b.parquet", stored(["id", "s", "l"], "p-y", "p-x")),  # each is called as the other
        h.add(path, "c.parquet", stored(["1", "3", "4"], "old x", "old y")),
        h.add(path, "d.parquet", stored(["col-1", "col-3", "col-4"], "p-x", "p-y", marked=False)),
    )  # fmt: skip
    lake.import_table(path)
    full = (1, {"x": 10, "y": 20}, [{"x": 30, "y": 40}, None])
    none = (1, {"x": None, "y": None}, [{"x": None, "y": None}, None])
    assert lake.sql("SELECT id, s, l FROM t").fetchall() == [full, full, full, none]
    assert lake.sql("SELECT count(*) FROM t WHERE s.x = 10").fetchall() == [(3,)]
    assert [row["s"] for row in lake.table("t").to_arrow(["s"]).to_pylist()] == [full[1]] * 3 + [none[1]]


def test_change_files_of_a_table_mapped_by_id(lake: Lake, tmp_path: Path) -> None:
    """_change_type has a name and no id; the columns beside it go by their ids all the same."""
    path = tmp_path / "t"
    schema = pa.schema([pa.field("old", pa.int64(), metadata={"PARQUET:field_id": "1"}), pa.field("_change_type", pa.string())])
    h.commit(
        path, 0, h.protocol(2, 5), h.metadata(h.field("id", "long", physical="col-1", mapped_id=1), columnMapping__mode="id")
    )
    said = h.add(path, "_change_data/c.parquet", pa.table([[7, 8], ["insert", "delete"]], schema=schema))["add"]
    h.commit(path, 1, {"cdc": {k: said[k] for k in ("path", "partitionValues", "size")} | {"dataChange": False}})
    lake.import_table(path)
    assert changes(lake, 1) == [(8, "delete", 1), (7, "insert", 1)]


def test_an_id_mode_without_ids_is_refused(lake: Lake, tmp_path: Path) -> None:
    path = tmp_path / "t"
    field = h.field("id", "long", physical="col-1", mapped_id="1}: {name: 'x'")
    h.commit(path, 0, h.protocol(2, 5), h.metadata(field, columnMapping__mode="id"), h.add(path, "a.parquet", ROWS))
    lake.import_table(path)
    with pytest.raises(LogCorruptError, match="'id' has no id"):
        lake.table("t").to_arrow()


# --- variants

NUMBER, WORD = b"\x0c\x07", b"\x11word"  # 7, and "word", as the variant encoding has them
PLAIN_KEYS, KEY_A = b"\x01\x00\x00", b"\x01\x01\x00\x01a"
OBJECT = b"\x02\x01\x00\x00\x02" + NUMBER  # {"a": 7}
GROUP = pa.struct({"value": pa.binary(), "metadata": pa.binary()})
UNMARKED = [{"value": OBJECT, "metadata": KEY_A}, {"value": WORD, "metadata": PLAIN_KEYS}, None]


def variants(path: Path, *adds: h.Action, feature: str = "variantType") -> None:
    nested = {"type": "map", "keyType": "string", "valueType": {"type": "array", "elementType": "variant", "containsNull": True}}
    fields = [
        ID,
        h.field("v", "variant"),
        h.field("s", h.struct_of(h.field("v", "variant"))),
        h.field("m", {**nested, "valueContainsNull": True}),
    ]
    h.commit(path, 0, h.protocol(3, 7, feature), h.metadata(*fields), *adds)


def unmarked(path: Path) -> h.Action:
    """A file as Spark 4.0 writes it: a group that no annotation marks."""
    held = pa.table({
        "id": pa.array([1, 2, 3], pa.int64()), "v": pa.array(UNMARKED, GROUP),
        "s": pa.array([{"v": v} for v in UNMARKED], pa.struct({"v": GROUP})),
        "m": pa.array([[("k", [v, None])] for v in UNMARKED], pa.map_(pa.string(), pa.list_(GROUP))),
    })  # fmt: skip
    return h.add(path, "unmarked.parquet", held)


def shredded(path: Path) -> h.Action:
    """A file as DuckDB writes it: marked, and with columns of its own for what the values have in common."""
    file = path / "shredded.parquet"
    rows = "SELECT 4 + range AS id, {'a': range, 'b': 'x'}::VARIANT AS v FROM range(2)"
    with duckdb.connect() as con:
        con.execute(f"COPY ({rows}) TO '{file}' (FORMAT parquet)")
        assert con.sql(f"SELECT count(*) FROM parquet_schema('{file}') WHERE name = 'typed_value'").fetchall() != [(0,)]
    return h.add(path, file.name)


@pytest.mark.parametrize("feature", ["variantType", "variantType-preview", "variantShredding", "variantShredding-preview"])
def test_variants_shredded_and_not(lake: Lake, tmp_path: Path, feature: str) -> None:
    path = tmp_path / "t"
    path.mkdir()
    variants(path, unmarked(path), shredded(path), feature=feature)
    lake.import_table(path)
    said = [{"a": 7}, "word", None, {"a": 0, "b": "x"}, {"a": 1, "b": "x"}]
    assert [
        json.loads(row[0]) for row in lake.sql("SELECT CAST(v AS JSON) FROM t WHERE v IS NOT NULL ORDER BY id").fetchall()
    ] == [value for value in said if value is not None]
    assert lake.sql("SELECT id FROM t WHERE CAST(v.a AS BIGINT) = 7").fetchall() == [(1,)]
    assert lake.sql("SELECT s.v, m['k'] FROM t WHERE id = 1").fetchall() == [({"a": 7}, [{"a": 7}, None])]
    assert lake.sql("SELECT id, v, s IS NULL FROM t ORDER BY id").fetchall() == [
        (i, value, i > 3) for i, value in enumerate(said, 1)
    ]
    with pytest.raises(UnsupportedFeatureError, match=feature):
        lake.write("t", {"id": [9]})


def test_variants_in_arrow(lake: Lake, tmp_path: Path) -> None:
    """The encoding's own bytes, as delta-rs hands them out."""
    path = tmp_path / "t"
    variants(path, unmarked(path))
    lake.import_table(path)
    found = lake.table("t").to_arrow()
    assert found.schema.field("v").type == pa.struct({"metadata": pa.binary(), "value": pa.binary()})
    assert [v and v["value"] for v in found["v"].to_pylist()] == [OBJECT, WORD, None]
    assert [m[0][1][0] and m[0][1][0]["value"] for m in found["m"].to_pylist()] == [OBJECT, WORD, None]
    assert found["s"].to_pylist()[0]["v"]["value"] == OBJECT
    assert lake.table("t").to_polars(["id", "v"]).height == 3
    assert lake.table("t").scan().select("id").collect().height == 3
    with pytest.raises(UnsupportedFeatureError, match="variants"):
        lake.table("t").to_pyarrow_dataset()


def test_a_shredded_variant_that_nothing_marks_is_refused(lake: Lake, tmp_path: Path) -> None:
    """DuckDB does not take it for a variant, and half of one is no answer."""
    path = tmp_path / "t"
    group = pa.struct({"metadata": pa.binary(), "value": pa.binary(), "typed_value": pa.int64()})
    variants(path, h.add(path, "a.parquet", pa.table({"v": pa.array([{"metadata": PLAIN_KEYS, "typed_value": 7}], group)})))
    lake.import_table(path)
    with pytest.raises(DeltaduckError, match="shredded variant without marking it"):
        lake.table("t").to_arrow()


# --- widened types, missing columns


def test_widened_types(lake: Lake, tmp_path: Path) -> None:
    path = tmp_path / "t"

    def widened(name: str, old: str, new: str) -> dict[str, Any]:
        return h.field(name, new, **{"delta.typeChanges": [{"fromType": old, "toType": new}]})

    fields = [
        widened("a", "integer", "long"),
        widened("b", "float", "double"),
        widened("c", "integer", "double"),
        widened("d", "date", "timestamp_ntz"),
        widened("e", "decimal(5,2)", "decimal(12,4)"),
        widened("f", "byte", "decimal(12,1)"),
        widened("g", "byte", "decimal(4,1)"),  # not the protocol's, but it holds every value
    ]
    old = pa.table(
        {
            "a": pa.array([7], pa.int32()),
            "b": pa.array([0.5], pa.float32()),
            "c": pa.array([3], pa.int32()),
            "d": pa.array([dt.date(2024, 2, 29)]),
            "e": pa.array([Decimal("1.25")], pa.decimal128(5, 2)),
            "f": pa.array([4], pa.int32()),
            "g": pa.array([-128], pa.int32()),
        }
    )
    stats = {
        "numRecords": 1,
        "minValues": {"a": 7, "d": "2024-02-29", "e": 1.25, "c": 3},
        "maxValues": {"a": 7, "d": "2024-02-29", "e": 1.25, "c": 3},
    }
    features = ("typeWidening", "timestampNtz")
    h.commit(path, 0, h.protocol(3, 7, *features), h.metadata(*fields), h.add(path, "a.parquet", old, stats=json.dumps(stats)))
    lake.import_table(path)
    row = (7, 0.5, 3.0, dt.datetime(2024, 2, 29), Decimal("1.2500"), Decimal("4.0"), Decimal("-128.0"))
    assert lake.sql("FROM t").fetchall() == [row]
    for condition in (
        "a = 7",
        "a < 10000000000",
        "d = TIMESTAMP '2024-02-29'",
        "d >= DATE '2024-02-29'",
        "e = 1.25",
        "c > 2.5",
        "f >= 4",
        "g < -127.5",
    ):
        assert lake.sql(f"FROM t WHERE {condition}").fetchall() == [row], condition


# --- foreign statistics


LONG = "z" * 40
FILES: dict[str, tuple[list[Any], dict[str, Any] | None]] = {
    "truncated": ([LONG, LONG + "a"], {"minValues": {"s": LONG[:32]}, "maxValues": {"s": LONG[:32]}}),  # a cut maximum not raised
    "raised": (["b", "c"], {"minValues": {"s": "b"}, "maxValues": {"s": "c\U0010ffff"}}),
    "none": (["q"], None),
    "empty": (["m"], {}),
    "nulls": ([None, None], {"nullCount": {"s": 2}}),
    "wrong type": (["k"], {"minValues": {"s": 5}, "maxValues": {"s": [1]}}),
}


def test_foreign_statistics_never_change_a_result(lake: Lake, tmp_path: Path) -> None:
    path = tmp_path / "t"
    adds = []
    for n, (values, stats) in enumerate(FILES.values()):
        rows = pa.table({"s": pa.array(values, pa.string()), "n": pa.array([float("nan") if n % 2 else float(n)] * len(values))})
        numbers = {"minValues": {"n": float(n)}, "maxValues": {"n": float(n)}} if n % 2 else {}  # NaN is not in anybody's maximum
        said = (
            None
            if stats is None
            else {"numRecords": len(values), **{k: {**numbers.get(k, {}), **stats.get(k, {})} for k in {*numbers, *stats}}}
        )
        adds.append(h.add(path, f"{n}.parquet", rows, stats=None if said is None else json.dumps(said)))
    adds[-1]["add"]["stats"] = "no json at all {"
    h.commit(path, 0, h.protocol(), h.metadata(h.field("s", "string"), h.field("n", "double")), *adds)
    lake.import_table(path)
    values = [v for held, _ in FILES.values() for v in held if v is not None] + [LONG[:32], "c"]
    literals = [f"'{v}'" for v in values]
    conditions = [f"s {op} {v}" for v in literals for op in ("=", "<", ">", "<=", ">=", "<>")]
    conditions += [
        "s IS NULL",
        "s IS NOT NULL",
        "s LIKE 'z%'",
        "s IN ('q', 'zz')",
        "n > 2",
        "n = 'nan'",
        "n <= 1",
        "n <> 1",
        "n >= 5",
    ]
    everything = lake.table("t").to_arrow()
    lake.con.execute("CREATE TEMP TABLE rows_of_t AS FROM everything")  # DuckDB 1.5 lets Arrow filter its own tables, less NaN
    for condition in conditions:
        pruned = lake.sql(f"SELECT s, n::VARCHAR FROM t WHERE {condition} ORDER BY ALL").fetchall()
        whole = lake.con.sql(f"SELECT s, n::VARCHAR FROM rows_of_t WHERE {condition} ORDER BY ALL").fetchall()
        assert pruned == whole, condition
    assert everything.num_rows == 9


def test_statistics_that_only_a_checkpoint_has_as_structs(lake: Lake, tmp_path: Path) -> None:
    path = tmp_path / "t"
    made = [h.add(path, f"{n}.parquet", ROWS.slice(n, 1), stats=None)["add"] for n in range(6)]
    bounds = pa.struct({"id": pa.int64(), "name": pa.string()})
    parsed = pa.struct({"numRecords": pa.int64(), "minValues": bounds, "maxValues": bounds})
    kinds = pa.struct([*h.CHECKPOINT.field("add").type, pa.field("stats_parsed", parsed)])
    value = [{"id": n, "name": "abcdef"[n]} for n in range(6)]
    rows = [
        {"add": {**a, "partitionValues": [], "stats_parsed": {"numRecords": 1, "minValues": v, "maxValues": v}}}
        for a, v in zip(made, value, strict=True)
    ]
    head = h.checkpoint_rows(h.protocol(), h.metadata(ID, NAME)).to_pylist()
    for row in head:
        row["metaData"] = row["metaData"] and {**row["metaData"], "configuration": []}
    schema = h.CHECKPOINT.set(h.CHECKPOINT.get_field_index("add"), pa.field("add", kinds))
    (path / "_delta_log").mkdir()
    pq.write_table(pa.Table.from_pylist(head + rows, schema), path / "_delta_log" / f"{3:020d}.checkpoint.parquet")
    lake.import_table(path)
    assert [lake.table("t").files(f"id {op} 4").num_rows for op in ("=", ">", "<=")] == [1, 1, 5]
    assert lake.table("t").files("name < 'c'").num_rows == 2
    assert (ids(lake), ids(lake, "id >= 4")) == ([0, 1, 2, 3, 4, 5], [4, 5])
    with pytest.raises(VersionNotFoundError, match="no changes"):
        lake.table("t").changes()


# --- the change data feed


def test_changes_are_what_delta_rs_says(lake: Lake, tmp_path: Path) -> None:
    path = tmp_path / "t"
    deltalake.write_deltalake(path, ROWS, configuration={"delta.enableChangeDataFeed": "true"})
    table = deltalake.DeltaTable(path)
    table.update(updates={"name": "'x'"}, predicate="id = 2")
    table.delete("id > 3")
    deltalake.write_deltalake(path, ROWS.slice(0, 1), mode="append")
    lake.import_table(path)
    for first, last in ((0, 3), (1, 1), (2, 3)):
        wanted = pa.table(deltalake.DeltaTable(path).load_cdf(starting_version=first, ending_version=last).read_all())
        columns = ["id", "name", "_change_type", "_commit_version"]
        theirs = sorted(map(tuple, (row.values() for row in wanted.select(columns).to_pylist())))
        assert sorted(lake.table("t").changes(first, last).project(", ".join(columns)).fetchall()) == theirs
    times = dict(lake.table("t").changes().project("_commit_version, epoch_ms(_commit_timestamp)").fetchall())
    assert times == {r["version"]: r["timestamp"] for r in lake.table("t").history()}
    at = dt.datetime.fromtimestamp(lake.table("t").history()[1]["timestamp"] / 1000, dt.UTC)
    assert {v for (v,) in lake.table("t").changes(from_timestamp=at).project("_commit_version").fetchall()} == {2, 3}
    with pytest.raises(VersionNotFoundError):
        lake.table("t").changes(4)
