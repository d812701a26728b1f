"""The same calls answer the same: our tables, and the ``deltalake`` package on what we publish of them."""

from __future__ import annotations

import datetime as dt
import inspect
import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import deltalake
import pyarrow as pa
import pyarrow.compute as pc
import pytest

import deltaduck
from deltaduck import Lake
from deltaduck.maintenance import TableAlterer, TableOptimizer
from deltaduck.table import TableMerger

NOON = dt.datetime(2024, 1, 31, 12, 0, 0, 123456, tzinfo=dt.UTC)
ROWS = pa.table(
    {
        "day": [dt.date(2024, 1, 1), dt.date(2024, 1, 1), dt.date(2024, 1, 2), None], "g": ["a b", "ü/é", None, "a b"],
        "n": [1, 2, 3, None], "f": [1.5, None, 2.5, -1.0], "s": ["x", "y", "zebra" * 20, None], "ok": [True, False, None, True],
        "at": [NOON, None, NOON + dt.timedelta(days=1), NOON], "local": pa.array([NOON.replace(tzinfo=None)] * 4),
        "price": pa.array([Decimal("1.20"), None, Decimal("-3.05"), Decimal(7)], pa.decimal128(10, 2)),
        "st": [{"x": 1, "y": {"z": "q"}}, None, {"x": 2, "y": None}, None], "l": [[1], [], None, [2, None]],
        "m": pa.array([[("k", 1)], None, [], [("j", None)]], pa.map_(pa.string(), pa.int64())), "b": [b"1", None, b"", b"2"],
    }
)  # fmt: skip
Pair = tuple[deltaduck.DeltaTable, deltalake.DeltaTable]


@pytest.fixture(scope="module")
def pair(shared_lake: Lake) -> Pair:
    """A table with some history: ours, and theirs over its mirror."""
    lake = shared_lake
    lake.write(
        "t", ROWS, partition_by=["day", "g"], configuration={"delta.checkpointInterval": "2", "owner": "x"},
        description="All types", commit_metadata="first", app_transaction=("loader", 7),
    )  # fmt: skip
    lake.write("t", ROWS.slice(1))
    lake.table("t").delete("n = 3")
    lake.write("t", ROWS.append_column("late", pa.array([1, 2, 3, 4])), schema_mode="merge")
    return lake.table("t"), deltalake.DeltaTable(lake.table("t").detail()["location"])


SAME: dict[str, Callable[[Any], Any]] = {
    "version": lambda t: t.version(),
    "table_uri": lambda t: t.table_uri,
    "count": lambda t: t.count(),
    "schema as JSON": lambda t: t.schema().to_json(),
    "schema as Arrow": lambda t: pa.schema(t.schema()),
    "schema as large Arrow": lambda t: pa.schema(t.schema().to_arrow(as_large_types=True)).types,
    "names and nullability": lambda t: [(f.name, f.nullable, f.metadata) for f in t.schema().fields],
    "metadata": lambda t: [
        getattr(t.metadata(), k) for k in ("id", "name", "description", "partition_columns", "created_time", "configuration")
    ],
    "protocol": lambda t: tuple(sorted(p) if isinstance(p, list) else p for p in t.protocol()),
    "protocol's names": lambda t: t.protocol()._fields,
    "transaction_version": lambda t: [t.transaction_version("loader"), t.transaction_version("nobody")],
    "history": lambda t: [dict(commit) for commit in t.history()],
    "history, limited": lambda t: [commit["operation"] for commit in t.history(2)],
    "file_uris": lambda t: sorted(t.file_uris()),
    "partitions": lambda t: sorted(str(sorted(p.items())) for p in t.partitions()),
    "add actions": lambda t: sorted(pa.table(t.get_add_actions()).to_pylist(), key=str),
    "flat add actions": lambda t: sorted(pa.table(t.get_add_actions(flatten=True)).to_pylist(), key=str),
    "types of add actions": lambda t: [(f.name, f.type) for f in pa.schema(t.get_add_actions().schema)],
    "types of flat add actions": lambda t: [(f.name, f.type) for f in pa.schema(t.get_add_actions(True).schema)],
    "deletion_vectors": lambda t: pa.table(t.deletion_vectors()),
    "dataset": lambda t: sorted(map(str, t.to_pyarrow_dataset().to_table().to_pylist())),
    "dataset's schema": lambda t: t.to_pyarrow_dataset().schema,
    "is_deltatable": lambda t: [t.is_deltatable(t.table_uri.removeprefix("file://")), t.is_deltatable("/nowhere")],
}


@pytest.mark.parametrize("what", SAME)
def test_same_answers(pair: Pair, what: str) -> None:
    ours, theirs = pair
    assert SAME[what](ours) == SAME[what](theirs)


def test_same_answers_of_an_older_version(pair: Pair) -> None:
    theirs = deltalake.DeltaTable(pair[1].table_uri)
    for version in range(4):
        theirs.load_as_version(version)
        ours = pair[0].as_of(version=version)
        for what in SAME.keys() - {"transaction_version", "is_deltatable", "history", "history, limited"}:
            assert SAME[what](ours) == SAME[what](theirs), (version, what)


PREDICATES: list[Any] = [
    None,
    "day = '2024-01-01'",
    "g = 'a b' AND n > 1",
    "n IN (1, 2) OR g IS NULL",
    "day BETWEEN '2024-01-02' AND '2024-02-01'",
    "NOT n <= 2",
    [("day", "=", "2024-01-01")],
    [("day", "=", dt.date(2024, 1, 2))],
    [("day", "!=", "2024-01-01")],
    [("day", "=", "")],
    [("day", "!=", "")],
    [("g", "in", ["a b", "ü/é"])],
    [("g", "not in", ["a b"])],
    [("g", ">", "a b"), ("day", "<=", "2024-01-01")],
    [[("g", "=", "a b")], [("day", "=", dt.date(2024, 1, 2)), ("g", "=", "")]],
    [("n", ">", 2)],
]


@pytest.mark.parametrize("predicate", PREDICATES, ids=str)
def test_same_files(pair: Pair, predicate: Any) -> None:
    ours, theirs = pair
    assert sorted(ours.file_uris(file_pruning_predicate=predicate)) == sorted(theirs.file_uris(file_pruning_predicate=predicate))
    for of in (lambda t: t.partitions(file_pruning_predicate=predicate), lambda t: []):
        assert sorted(str(sorted(p.items())) for p in of(ours)) == sorted(str(sorted(p.items())) for p in of(theirs))
    dataset = [t.to_pyarrow_dataset(file_pruning_predicate=predicate).count_rows() for t in pair]
    assert dataset[0] == dataset[1]


FILTERS: list[Any] = [
    [("n", ">=", 2)],
    [("day", "=", dt.date(2024, 1, 1)), ("n", "<", 2)],
    [[("s", "=", "x")], [("f", "<", 0.0)]],
    [("g", "in", ["a b"])],
    pc.field("n").is_null(),
    (pc.field("at") > NOON) | (pc.field("price") < Decimal("2.00")),
    pc.field("late") > 2,
    pc.field("g").is_null() & (pc.field("f") != 1.5),
]


@pytest.mark.parametrize("filters", FILTERS, ids=str)
def test_same_rows(pair: Pair, filters: Any) -> None:
    ours, theirs = (t.to_pyarrow_table(filters=filters) for t in pair)
    assert sorted(map(str, ours.to_pylist())) == sorted(map(str, theirs.to_pylist()))
    assert ours.num_rows
    assert ours.schema == theirs.schema
    frames = [t.to_pandas(columns=["n"], filters=filters) for t in pair]
    assert sorted(map(str, frames[0]["n"])) == sorted(map(str, frames[1]["n"]))


@pytest.mark.parametrize("expression", [f for f in FILTERS if isinstance(f, pc.Expression)], ids=str)
def test_guarantees_skip_no_fewer_files_than_are_needed(pair: Pair, expression: pc.Expression) -> None:
    dataset = pair[0].to_pyarrow_dataset()
    needed = sum(bool(f.to_table(schema=dataset.schema, filter=expression).num_rows) for f in dataset.get_fragments())
    kept = len(list(dataset.get_fragments(expression)))
    assert needed <= kept < len(dataset.files) or kept == needed


# --- signatures


METHODS = [
    name for name, member in inspect.getmembers(deltaduck.DeltaTable)
    if callable(member) and not name.startswith("_") and hasattr(deltalake.DeltaTable, name)
]  # fmt: skip


FUNCTIONS = ("write_deltalake", "convert_to_deltalake")


@pytest.mark.parametrize("name", ["__init__", *METHODS, *FUNCTIONS])
def test_signatures_take_what_theirs_take(name: str) -> None:
    """By position and by name, with the same defaults; what they take by *args, positions of names behind it."""
    holder = (deltaduck, deltalake) if name in FUNCTIONS else (deltaduck.DeltaTable, deltalake.DeltaTable)
    if holder[0] is deltaduck.DeltaTable and name in BY_OTHERS:
        pytest.skip(BY_OTHERS[name])
    ours, theirs = (inspect.signature(getattr(h, name)).parameters for h in holder)
    wanted = {n: p for n, p in theirs.items() if p.kind is not p.VAR_POSITIONAL}
    assert wanted.keys() <= ours.keys()
    assert [n for n in ours if n in wanted] == list(wanted)
    for n, p in wanted.items():
        default = getattr(p.default, "value", p.default)
        assert ours[n].default == default or name == "version", n
        assert p.kind is p.KEYWORD_ONLY or ours[n].kind is p.kind, n


ALTERS = [name for name in dir(deltalake.table.TableAlterer) if not name.startswith("_")]


@pytest.mark.parametrize("name", ALTERS)
def test_alterations_take_what_theirs_take(name: str) -> None:
    ours = inspect.signature(getattr(TableAlterer, name)).parameters
    theirs = inspect.signature(getattr(deltalake.table.TableAlterer, name)).parameters
    wanted = {n: p.default for n, p in theirs.items() if n != "self" and p.kind is not p.VAR_POSITIONAL}
    assert {n: ours[n].default for n in wanted} == wanted


@pytest.mark.parametrize("name", ["compact", "z_order"])
def test_optimizations_take_what_theirs_take(name: str) -> None:
    ours, theirs = (inspect.signature(getattr(c, name)).parameters for c in (TableOptimizer, deltalake.table.TableOptimizer))
    wanted = {n: (p.default, p.kind) for n, p in theirs.items() if p.kind is not p.VAR_POSITIONAL}
    assert {n: (p.default, p.kind) for n, p in ours.items()} == wanted


def test_nothing_of_theirs_is_missing() -> None:
    theirs = {n for n in vars(deltalake.DeltaTable) if not n.startswith("_")}
    assert {n for n in theirs if not hasattr(deltaduck.DeltaTable, n)} == set()
    for ours, other in (
        (TableAlterer, deltalake.table.TableAlterer),
        (TableOptimizer, deltalake.table.TableOptimizer),
        (TableMerger, deltalake.table.TableMerger),
        (deltaduck.QueryBuilder, deltalake.QueryBuilder),
    ):
        assert {n for n in vars(other) if not n.startswith("_") and not hasattr(ours, n)} == set()


# Their own tests say what these take.
BY_OTHERS = dict.fromkeys(("delete", "update", "merge"), "operations on rows, tested there")


@pytest.mark.parametrize("name", ["CommitProperties", "PostCommitHookProperties", "WriterProperties"])
def test_properties_take_what_theirs_take(name: str) -> None:
    ours, theirs = (inspect.signature(getattr(package, name)).parameters for package in (deltaduck, deltalake))
    assert {n: p.default for n, p in ours.items()} == {n: p.default for n, p in theirs.items()}
    assert list(ours) == list(theirs)


def test_their_own_objects_will_do(lake: Lake) -> None:
    lake.create_table("t", pa.schema({"n": pa.int64()}))
    deltaduck.write_deltalake(
        lake.table("t"), pa.table({"n": [1]}), mode="append",
        writer_properties=deltalake.WriterProperties(compression="ZSTD", compression_level=3, max_row_group_size=10_000),
        commit_properties=deltalake.CommitProperties({"by": "them"}, 5, [deltalake.Transaction("app", 9)]),
        post_commithook_properties=deltalake.PostCommitHookProperties(),
    )  # fmt: skip
    theirs = deltalake.DeltaTable(lake.table("t").detail()["location"])
    assert (theirs.transaction_version("app"), theirs.history()[0]["by"]) == (9, "them")
    for codec in ("GZIP", "BROTLI", "SNAPPY"):
        told = deltalake.WriterProperties(compression=codec)
        deltaduck.write_deltalake(lake.table("t"), pa.table({"n": [2]}), mode="append", writer_properties=told)
    refused = deltalake.WriterProperties(column_properties={"n": deltalake.ColumnProperties(dictionary_enabled=False)})
    with pytest.raises(deltaduck.UnsupportedFeatureError, match="column_properties"):
        deltaduck.write_deltalake(lake.table("t"), pa.table({"n": [2]}), mode="append", writer_properties=refused)


def test_their_schema_creates_a_table(lake: Lake) -> None:
    field = deltalake.Field("n", "long", nullable=False, metadata={"comment": "a number"})
    lake.create_table("t", deltalake.Schema([field]))
    assert json.loads(lake.table("t").schema().to_json()) == json.loads(deltalake.Schema([field]).to_json())


# --- the same changes


def _feed(t: Any, *versions: int, **told: Any) -> list[str]:
    rows = pa.table(t.load_cdf(*versions, **told).read_all())
    return sorted(str(sorted((k, v) for k, v in r.items() if k != "_commit_timestamp")) for r in rows.to_pylist())


CHANGES: dict[str, Callable[[Any, Any], Any]] = {
    "load_cdf": lambda p, t: [_feed(t), _feed(t, 1, 1), _feed(t, 0, 99), _feed(t, 9, allow_out_of_range=True)],
    "load_cdf, some": lambda p, t: _feed(t, 0, columns=["n", "_change_type"], predicate="_change_type = 'delete'"),
    "QueryBuilder": lambda p, t: [
        r["n"] for r in pa.table(p.QueryBuilder().register("x", t).execute("SELECT n FROM x WHERE n > 1").read_all()).to_pylist()
    ],
    "update, not exact": lambda p, t: [
        t.update(new_values={"n": "many"}, error_on_type_mismatch=False)["num_updated_rows"], _rows(t)
    ],
    "add_columns in a struct": lambda p, t: [
        t.alter.add_columns(deltalake.Field("st", deltalake.schema.StructType([deltalake.Field("more", "long")]))),
        json.loads(t.schema().to_json()),
    ],
    "repair": lambda p, t: [t.repair(dry_run=True), t.repair(), t.version()],
    "sizes of optimize": lambda p, t: sorted(json.loads(t.optimize.compact()["filesRemoved"])),
}  # fmt: skip


def _rows(t: Any) -> list[str]:
    return sorted(map(str, t.to_pyarrow_table().to_pylist()))


@pytest.mark.parametrize("what", CHANGES)
def test_same_answers_of_changes(tmp_path: Any, what: str) -> None:
    answers = []
    for package, target in ((deltaduck, f"deltasql://sqlite/{tmp_path}/c.sqlite?table=t"), (deltalake, str(tmp_path / "theirs"))):
        rows = ROWS.select(["n", "s", "st"])
        package.write_deltalake(target, rows, configuration={"delta.enableChangeDataFeed": "true"})
        table = package.DeltaTable(target)
        table.delete("n = 3")
        table.update(predicate="n = 2", new_values={"s": "new"})
        answers.append(CHANGES[what](package, table))
    assert answers[0] == answers[1]


# --- the same writes


WRITES: dict[str, list[dict[str, Any]]] = {
    "error": [{}, {}],
    "append": [{"mode": "append"}, {"mode": "append"}],
    "ignore": [{"mode": "ignore"}, {"mode": "ignore"}],
    "overwrite": [{}, {"mode": "overwrite"}],
    "overwrite where": [{}, {"mode": "overwrite", "predicate": "n = 2", "rows": slice(1, 1)}],
    "partitioned": [{"partition_by": "day"}, {"mode": "append", "partition_by": ["day"]}],
    "merged": [{}, {"mode": "append", "schema_mode": "merge", "extra": True}],
    "replaced": [
        {"partition_by": ["g"]},
        {"mode": "overwrite", "schema_mode": "overwrite", "extra": True, "partition_by": ["day"]},
    ],
    "an unknown column": [{}, {"mode": "append", "extra": True}],
    "another partitioning": [{"partition_by": "day"}, {"mode": "append", "partition_by": "g"}],
    "described": [{"name": "N", "description": "D", "configuration": {"delta.appendOnly": "true"}}],
    "append-only": [{"configuration": {"delta.appendOnly": "true"}}, {"mode": "overwrite"}],
}


@pytest.mark.parametrize("writes", WRITES.values(), ids=WRITES)
def test_same_results_of_writes(lake: Lake, tmp_path: Any, writes: list[dict[str, Any]]) -> None:
    ours = f"deltasql://sqlite/{tmp_path}/w.sqlite?table=t"
    theirs = str(tmp_path / "theirs")
    plain = ROWS.select(["day", "g", "n", "f", "s", "ok", "at"])

    def run(package: Any, target: str, told: dict[str, Any]) -> bool:
        data = plain.append_column("extra", pa.array([1, 2, 3, 4])) if told.get("extra") else plain
        part = told.get("rows")
        data = data.slice(part.start, part.stop) if part else data
        try:
            package.write_deltalake(target, data, **{k: v for k, v in told.items() if k not in ("extra", "rows")})
        except (deltaduck.DeltaduckError, deltalake.exceptions.DeltaError, ValueError):
            return False
        return True

    for told in writes:
        assert run(deltaduck, ours, told) == run(deltalake, theirs, told)
    mine, other = deltaduck.DeltaTable(ours), deltalake.DeltaTable(theirs)
    assert sorted(map(str, mine.to_pyarrow_table().to_pylist())) == sorted(map(str, other.to_pyarrow_table().to_pylist()))
    assert mine.version() == other.version()
    assert mine.schema().names == [f.name for f in other.schema().fields]
    for what in ("description", "partition_columns", "configuration"):
        assert getattr(mine.metadata(), what) == getattr(other.metadata(), what)
