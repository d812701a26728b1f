"""Tables by URI, the way the ``deltalake`` package has them, in every kind of catalog."""

from __future__ import annotations

import datetime as dt
import gc
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import deltaduck
from deltaduck import (
    AppTransaction,
    CatalogError,
    CommitProperties,
    DeltaTable,
    PostCommitHookProperties,
    QueryError,
    Schema,
    SchemaMismatchError,
    TableExistsError,
    TableNotFoundError,
    UnsupportedFeatureError,
    UriError,
    VersionNotFoundError,
    WriterProperties,
    write_deltalake,
)

Uri = Callable[[str], str]
Rows = list[dict[str, object]]


def rows(table: DeltaTable) -> Rows:
    return sorted(table.to_arrow().to_pylist(), key=str)


# --- writing


def test_a_first_write_makes_the_lake_and_the_table(uri: Uri, people: pa.Table) -> None:
    write_deltalake(uri("people"), people)
    table = DeltaTable(uri("people"))
    assert (table.version(), rows(table)) == (0, people.to_pylist())


def test_error_is_the_default_mode(uri: Uri, people: pa.Table) -> None:
    write_deltalake(uri("people"), people)
    with pytest.raises(TableExistsError, match="'people' exists already"):
        write_deltalake(uri("people"), people)
    write_deltalake(uri("people"), people, mode="ignore")
    assert DeltaTable(uri("people")).version() == 0
    write_deltalake(uri("people"), people, mode="append")
    assert DeltaTable(uri("people")).count() == 6
    write_deltalake(uri("people"), people.slice(1), mode="overwrite")
    write_deltalake(DeltaTable(uri("people")), people.slice(1), mode="overwrite", predicate="id = 2 OR id = 3")
    assert rows(DeltaTable(uri("people"))) == people.slice(1).to_pylist()


def test_schema_modes(uri: Uri, people: pa.Table) -> None:
    write_deltalake(uri("t"), people)
    more = people.append_column("age", pa.array([36, None, 7]))
    with pytest.raises(SchemaMismatchError, match="'age' is not in the table"):
        write_deltalake(uri("t"), more, mode="append")
    write_deltalake(uri("t"), more, mode="append", schema_mode="merge")
    assert DeltaTable(uri("t")).schema().names == ["id", "name", "age"]
    write_deltalake(uri("t"), people.select(["id"]), mode="overwrite", schema_mode="overwrite")
    assert DeltaTable(uri("t")).schema().names == ["id"]


def test_what_a_new_table_is_told(uri: Uri, days: pa.Table) -> None:
    properties = {"delta.checkpointInterval": "7", "owner": "ducks", "nothing": None}
    write_deltalake(uri("t"), days, partition_by="day", name="The days", description="Six rows", configuration=properties)
    metadata = DeltaTable(uri("t")).metadata()
    assert metadata[1:4] == ("The days", "Six rows", ["day"])
    assert metadata.configuration == {"delta.checkpointInterval": "7", "owner": "ducks"}
    write_deltalake(uri("t"), days, mode="append", name="The days", description="Six rows", partition_by=["day"])
    for option in ({"name": "Days"}, {"description": "Seven"}, {"configuration": {"owner": "geese"}}):
        with pytest.raises(UnsupportedFeatureError, match="not changed by a write"):
            write_deltalake(uri("t"), days, mode="append", **option)  # type: ignore[arg-type]
    assert DeltaTable(uri("t")).version() == 1


@pytest.mark.parametrize(
    "frame",
    [
        lambda t: t,
        lambda t: t.to_reader(),
        lambda t: t.to_batches()[0],
        lambda t: [batch for part in (t.slice(0, 1), t.slice(1)) for batch in part.to_batches()],
        lambda t: t.to_pandas(),
        pl.from_arrow,
        lambda t: pl.from_arrow(t).lazy(),
        lambda t: t.to_pylist(),
        lambda t: Stream(t),  # noqa: PLW0108 - defined below
        lambda t: Batch(t),  # noqa: PLW0108
    ],
    ids=["table", "reader", "batch", "batches", "pandas", "polars", "lazy", "dicts", "stream", "array"],
)
def test_every_kind_of_data(frame: Callable[[pa.Table], object], people: pa.Table, tmp_path: Path) -> None:
    """One catalog will do: what becomes of data has nothing to do with it."""
    uri = f"deltasql://sqlite/{tmp_path}/lake.sqlite?table=t"
    write_deltalake(uri, frame(people))
    assert rows(DeltaTable(uri)) == people.to_pylist()


def test_a_slice_of_nested_rows(tmp_path: Path) -> None:
    uri = f"deltasql://sqlite/{tmp_path}/lake.sqlite?table=t"
    nested = pa.table({"st": [{"x": 1}, {"x": 2}, None], "l": [[1], [2, 3], None]})
    for part in (nested.slice(1), nested.slice(1).to_batches()[0], nested.slice(1).to_batches()):
        write_deltalake(uri, part, mode="overwrite")
        assert rows(DeltaTable(uri)) == sorted(nested.slice(1).to_pylist(), key=str)


class Stream:
    """Something that speaks Arrow's C stream, and nothing else."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._table.__arrow_c_stream__(requested_schema)


class Batch:
    """Something that speaks Arrow's C array, and nothing else."""

    def __init__(self, table: pa.Table) -> None:
        self._batch = table.to_batches()[0]

    def __arrow_c_array__(self, requested_schema: object = None) -> object:
        return self._batch.__arrow_c_array__(requested_schema)


# --- what commits, files and hooks are told


def test_commit_properties(uri: Uri, people: pa.Table) -> None:
    told = CommitProperties(
        {"job": {"id": 7}, "userMetadata": "nightly"}, 3, [AppTransaction("loader", 41), AppTransaction("other", 1)]
    )
    write_deltalake(uri("t"), people, commit_properties=told)
    table = DeltaTable(uri("t"))
    (commit,) = table.history()
    assert (commit["job"], commit["userMetadata"], commit["user_metadata"]) == ({"id": 7}, "nightly", "nightly")
    assert [table.transaction_version(app) for app in ("loader", "other", "nobody")] == [41, 1, None]
    line = Path(table.detail()["location"], "_delta_log", f"{0:020d}.json").read_text(encoding="utf-8").splitlines()[0]
    assert json.loads(line)["commitInfo"]["job"] == {"id": 7}


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"commit_properties": CommitProperties({"operation": "x", "timestamp": 1})}, "cannot set operation, timestamp"),
        ({"commit_properties": CommitProperties({"x": object()})}, "cannot be written as JSON"),
        ({"commit_properties": CommitProperties({"x": float("nan")})}, "cannot be written as JSON"),
        ({"commit_properties": CommitProperties({"userMetadata": 1})}, "userMetadata is text"),
        ({"post_commithook_properties": PostCommitHookProperties(cleanup_expired_logs=True)}, "cleanup_expired_logs"),
        (
            {"writer_properties": WriterProperties(write_batch_size=1, data_page_size_limit=1)},
            "data_page_size_limit, write_batch_size",
        ),
        ({"writer_properties": WriterProperties(column_properties={})}, "column_properties cannot be honoured"),
        ({"writer_properties": WriterProperties(compression="LZO")}, "'LZO'; it is one of UNCOMPRESSED, SNAPPY"),
        ({"writer_properties": WriterProperties(compression="GZIP", compression_level=9)}, "compression_level of GZIP"),
        ({"writer_properties": WriterProperties(max_row_group_size=10)}, "2048 is the least"),
        ({"target_file_size": 0}, "target_file_size is 0"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_honoured_is_refused_by_name(uri: Uri, people: pa.Table, told: dict[str, object], said: str) -> None:
    with pytest.raises(UnsupportedFeatureError, match=said):
        write_deltalake(uri("t"), people, **told)  # type: ignore[arg-type]
    assert not DeltaTable.is_deltatable(uri("t"))


@pytest.mark.parametrize("codec", ["UNCOMPRESSED", "SNAPPY", "GZIP", "BROTLI", "ZSTD", "LZ4_RAW"])
def test_compression(uri: Uri, codec: str) -> None:
    level = 5 if codec == "ZSTD" else None
    told = WriterProperties(compression=codec, compression_level=level, max_row_group_size=5000)
    write_deltalake(uri("t"), pa.table({"n": range(20_000)}), writer_properties=told)
    (name,) = DeltaTable(uri("t")).file_uris()
    found = pq.read_metadata(name)
    groups = [found.row_group(i) for i in range(found.num_row_groups)]
    assert {g.column(0).compression for g in groups} == {codec.replace("_RAW", "")}
    assert max(g.num_rows for g in groups) == 4096


def test_target_file_size(uri: Uri) -> None:
    noise = pa.table({"n": [hash((n, "x")) for n in range(400_000)]})
    write_deltalake(uri("whole"), noise)
    write_deltalake(uri("parts"), noise, target_file_size=1_000_000)
    assert len(DeltaTable(uri("whole")).file_uris()) == 1
    assert len(DeltaTable(uri("parts")).file_uris()) > 1


def test_a_hook_may_leave_the_checkpoint_out(uri: Uri, people: pa.Table) -> None:
    for table, told in (("with", None), ("without", PostCommitHookProperties(create_checkpoint=False))):
        write_deltalake(uri(table), people, configuration={"delta.checkpointInterval": "1"})
        write_deltalake(uri(table), people, mode="append", post_commithook_properties=told)
        log = Path(DeltaTable(uri(table)).detail()["location"], "_delta_log")
        assert bool(list(log.glob("*.checkpoint.parquet"))) == (table == "with")


# --- creating


SCHEMA = pa.schema([pa.field("id", pa.int64(), nullable=False), pa.field("day", pa.date32())])


def test_create(uri: Uri) -> None:
    made = DeltaTable.create(
        uri("t"), SCHEMA, "error", "day", "T", "A table", {"delta.appendOnly": "true"}, None, CommitProperties({"by": "test"})
    )
    assert made.schema() == SCHEMA
    assert (made.metadata().name, made.metadata().partition_columns) == ("T", ["day"])
    assert made.history()[0]["by"] == "test"
    with pytest.raises(TableExistsError):
        DeltaTable.create(uri("t"), SCHEMA)
    assert DeltaTable.create(uri("t"), SCHEMA, mode="ignore").version() == 0


def test_create_over_a_table(uri: Uri, people: pa.Table) -> None:
    write_deltalake(uri("t"), people)
    replaced = DeltaTable.create(uri("t"), SCHEMA, mode="overwrite", partition_by=["day"])
    assert (replaced.version(), replaced.count(), replaced.schema().names) == (1, 0, ["id", "day"])
    assert rows(DeltaTable(uri("t"), version=0)) == people.to_pylist()


def test_a_mode_that_is_none(uri: Uri) -> None:
    with pytest.raises(SchemaMismatchError, match="mode 'replace' is unknown; it is one of append, overwrite, error, ignore"):
        DeltaTable.create(uri("t"), SCHEMA, mode="replace")
    assert not DeltaTable.is_deltatable(uri("t"))


def test_other_properties_are_asked_for(uri: Uri) -> None:
    with pytest.raises(deltaduck.DeltaduckError, match="owner are no delta"):
        DeltaTable.create(uri("t"), SCHEMA, configuration={"owner": "x"})
    table = DeltaTable.create(uri("t"), SCHEMA, configuration={"owner": "x"}, raise_if_key_not_exists=False)
    assert table.metadata().configuration == {"owner": "x"}


@pytest.mark.parametrize("schema", [SCHEMA, {"id": "BIGINT NOT NULL", "day": "DATE"}], ids=["arrow", "sql"])
def test_schemas_to_create_from(uri: Uri, schema: object) -> None:
    first = DeltaTable.create(uri("first"), schema)
    assert DeltaTable.create(uri("second"), first.schema()).schema() == first.schema() == SCHEMA


# --- opening


def test_is_deltatable_makes_nothing(uri: Uri, kind: str, people: pa.Table, tmp_path: Path) -> None:
    assert not DeltaTable.is_deltatable(uri("t"))
    assert list(tmp_path.iterdir()) == []
    write_deltalake(uri("t"), people)
    assert DeltaTable.is_deltatable(uri("t"))
    assert not DeltaTable.is_deltatable(uri("other"))


def test_what_is_not_there(uri: Uri, people: pa.Table) -> None:
    with pytest.raises(TableNotFoundError, match="there is no lake"):
        DeltaTable(uri("people"))
    write_deltalake(uri("people"), people)
    with pytest.raises(TableNotFoundError, match="did you mean 'people'"):
        DeltaTable(uri("peple"))
    with pytest.raises(VersionNotFoundError, match="versions 0 to 0"):
        DeltaTable(uri("people"), version=3)


def test_a_uri_without_a_table(tmp_path: Path) -> None:
    with pytest.raises(UriError, match=r"the table is missing: add .table=<name>$"):
        DeltaTable(f"deltasql://duckdb/{tmp_path}/x.duckdb")
    with pytest.raises(UriError, match=r"the table is missing: add .table=<name> or /<schema>/<table>"):
        DeltaTable("postgresql://ada:hush@db/lakes")


def test_a_password_is_not_shown(tmp_path: Path) -> None:
    with pytest.raises(CatalogError) as caught:
        DeltaTable(f"deltasql://postgres/ada:hush@localhost:1/lakes/public/t?connect_timeout=1&host={tmp_path}")
    assert "hush" not in str(caught.value)
    with pytest.raises(UriError, match=r"ada:\*\*\*@db"):
        DeltaTable("deltasql://postgres/ada:hush@db/lakes")


def test_lake_table_is_the_same_class(open_lake: Callable[[], deltaduck.Lake], people: pa.Table) -> None:
    lake = open_lake()
    lake.write("t", people)
    assert type(lake.table("t")) is DeltaTable
    assert lake.table("t").table_uri == f"file://{lake.table('t').detail()['location']}/"
    write_deltalake(lake.table("t"), people, mode="append")
    assert lake.table("t").version() == 1


# --- versions


def test_versions(uri: Uri, people: pa.Table) -> None:
    write_deltalake(uri("t"), people)
    table = DeltaTable(uri("t"))
    for _ in range(3):
        write_deltalake(uri("t"), people, mode="append")
    assert (table.version(), DeltaTable(uri("t"), version=1).version()) == (3, 1)
    table.load_as_version(0)
    assert (table.version(), table.count(), len(table.history())) == (0, 3, 1)
    first, second = (commit["committed"] for commit in reversed(DeltaTable(uri("t"), 1).history()))
    for moment in (first, first.isoformat(), first.replace(tzinfo=None), second - dt.timedelta(milliseconds=1)):
        table.load_as_version(moment)
        assert table.version() == 0
    assert DeltaTable(uri("t"), second).version() == 1
    table.update_incremental()
    assert (table.version(), table.count()) == (3, 12)
    for wrong in (9, "yesterday", "1990-01-01", None):
        with pytest.raises(VersionNotFoundError):
            table.load_as_version(wrong)  # type: ignore[arg-type]
    assert table.version() == 3


def test_history_speaks_the_logs_words_and_ours(uri: Uri, people: pa.Table) -> None:
    write_deltalake(uri("t"), people)
    write_deltalake(uri("t"), people, mode="append")
    last, first = DeltaTable(uri("t")).history()
    assert (last["version"], last["readVersion"], last["read_version"], first["read_version"]) == (1, 0, 0, None)
    assert last["operationParameters"] == last["operation_parameters"] == {"mode": "Append", "partitionBy": "[]"}
    assert dt.datetime.fromtimestamp(last["timestamp"] / 1000, dt.UTC) == last["committed"]
    assert json.loads(json.dumps(last)) == dict(last)
    with pytest.raises(KeyError):
        last["operationparameters"]
    assert [c["version"] for c in DeltaTable(uri("t")).history(1)] == [1]
    assert DeltaTable(uri("t")).history().to_arrow()["timestamp"].to_pylist() == [last["committed"], first["committed"]]


# --- reading


@pytest.fixture
def table(uri: Uri, days: pa.Table) -> DeltaTable:
    write_deltalake(uri("days"), days, partition_by="day")
    return DeltaTable(uri("days"))


def test_rows_that_match(table: DeltaTable, days: pa.Table) -> None:
    late = [{"day": "tue", "n": 4}, {"day": "wed", "n": 5}]
    for filters in ([("n", ">=", 4), ("n", "<", 6)], [[("n", "=", 4)], [("day", "=", "wed")]], pc.field("n").isin([4, 5])):
        assert sorted(table.to_pyarrow_table(filters=filters).to_pylist(), key=str) == late
    assert table.to_pyarrow_table([("day", "in", ["tue", "wed"])], ["n"], filters=[("n", ">", 3)]).to_pydict() == {"n": [4, 5]}
    assert sorted(table.to_pandas(columns=["n"], filters=[("day", "=", "")])["n"]) == [6]
    assert table.to_pandas(columns=["n"], filter="day = 'wed'")["n"].tolist() == [5]
    assert table.to_pyarrow_table().num_rows == table.to_polars().height == days.num_rows


def test_a_dataset(table: DeltaTable, days: pa.Table) -> None:
    dataset = table.to_pyarrow_dataset()
    assert sorted(dataset.to_table().to_pylist(), key=str) == sorted(days.to_pylist(), key=str)
    assert dataset.to_table(columns=["n"], filter=pc.field("day").is_null()).to_pydict() == {"n": [6]}
    assert [len(list(dataset.get_fragments(f))) for f in (pc.field("day") == "mon", pc.field("n") > 4, pc.field("n") > 6)] == [
        1,
        2,
        0,
    ]
    assert len(table.to_pyarrow_dataset([("day", "!=", "mon")]).files) == 2
    assert table.to_pyarrow_dataset(as_large_types=True).schema.field("day").type == pa.large_string()


def test_a_dataset_over_a_filesystem_of_the_table(table: DeltaTable) -> None:
    root = pa.fs.SubTreeFileSystem(table.detail()["location"], pa.fs.LocalFileSystem())
    assert table.to_pyarrow_dataset(filesystem=root).count_rows() == 6
    assert table.to_pyarrow_table(filesystem=root, filters=[("n", ">", 4)]).num_rows == 2


def test_guarantees_hold_for_nan_and_null(uri: Uri) -> None:
    values = pa.table({"f": [1.0, float("nan"), None, 1.0], "n": [1, None, 1, 1]})
    write_deltalake(uri("t"), values)
    dataset = DeltaTable(uri("t")).to_pyarrow_dataset()
    for expression in (pc.field("f") != 1, pc.field("n").is_null(), ~pc.is_nan(pc.field("f")), pc.field("n") == 1):
        assert dataset.to_table(filter=expression).num_rows == values.filter(expression).num_rows


def test_a_lazy_frame(table: DeltaTable) -> None:
    frame = table.scan()
    write_deltalake(table, [{"day": "thu", "n": 7}], mode="append")
    assert frame.filter(pl.col("n") > 4).select("n").sort("n").collect()["n"].to_list() == [5, 6]
    assert table.scan(["n"], "day = 'thu'").collect().to_dict(as_series=False) == {"n": [7]}
    assert table.scan(predicate="n > 2").filter(pl.col("n") < 5).select("day").head(1).collect()["day"].to_list() == ["tue"]


def test_wrong_filters(table: DeltaTable) -> None:
    for wrong in (
        "nope = 1",
        "n > 1 OR days.nope = 2",
        [("nope", "=", 1)],
        [("n", "~", 1)],
        [("n", "=", 1), [("n", "=", 2)]],
        [[]],
        ["n"],
    ):
        with pytest.raises(QueryError):
            table.file_uris(file_pruning_predicate=wrong)
    with pytest.raises(QueryError, match="table 'days' has no column 'dya'; it has day, n"):
        table.files("dya = 'mon'")
    assert table.files("days.n = 1 AND len(list_filter([n], lambda x: x > 0)) = 1 AND n = (SELECT 1)").num_rows == 1
    assert len(table.file_uris(file_pruning_predicate=[])) == 4
    assert table.file_uris(file_pruning_predicate=[("n", "in", [])]) == []
    assert table.partitions(file_pruning_predicate=[("day", "in", ["", "mon"])]) == [{"day": "mon"}, {"day": None}]
    assert table.partitions(file_pruning_predicate=[("day", "not in", ["", "mon"])]) == [{"day": "tue"}, {"day": "wed"}]


def test_a_schema(table: DeltaTable) -> None:
    schema = table.schema()
    assert pa.schema(schema) == schema.to_arrow() == schema
    assert (schema.names, schema.field("n").type, len(schema)) == (["day", "n"], pa.int64(), 2)
    assert [f.name for f in schema] == [f.name for f in schema.fields] == ["day", "n"]
    assert Schema.from_json(schema.to_json()) == schema
    nested = pa.schema({"l": pa.list_(pa.string()), "s": pa.struct({"b": pa.binary()})})
    large = DeltaTable.create(table.table_uri.replace("days", "nested"), nested).schema().to_arrow(as_large_types=True)
    assert large.types == [pa.large_list(pa.field("element", pa.large_string())), pa.struct({"b": pa.large_binary()})]


def test_a_checkpoint_of_any_version(table: DeltaTable) -> None:
    write_deltalake(table, [{"day": "thu", "n": 7}], mode="append")
    table.create_checkpoint()
    table.create_checkpoint()
    DeltaTable(table.table_uri, version=0).create_checkpoint()
    log = Path(table.detail()["location"], "_delta_log")
    assert sorted(p.name for p in log.glob("*.checkpoint.parquet")) == [f"{v:020d}.checkpoint.parquet" for v in (0, 1)]
    assert json.loads((log / "_last_checkpoint").read_text(encoding="utf-8"))["version"] == 1


# --- lakes are shared, and let go


def test_tables_of_one_lake_share_it(uri: Uri, people: pa.Table) -> None:
    write_deltalake(uri("a"), people)
    write_deltalake(uri("b"), people)
    a, b, again = DeltaTable(uri("a")), DeltaTable(uri("b")), DeltaTable(uri("a"))
    assert a.place.lake is b.place.lake is again.place.lake
    old, lake = a.as_of(version=0), a.place.lake
    del a, b, again
    gc.collect()
    assert not lake.closed
    assert rows(old) == people.to_pylist()
    del old
    gc.collect()
    assert lake.closed


def test_a_file_is_free_again(uri: Uri, kind: str, people: pa.Table, tmp_path: Path) -> None:
    write_deltalake(uri("people"), people)
    frame = DeltaTable(uri("people")).scan(predicate="id > 1")  # holds on to the lake
    assert frame.collect().height == 2
    del frame
    gc.collect()
    script = f"import deltaduck; print(deltaduck.DeltaTable({uri('people')!r}).count())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("3\n", "")


def test_a_closed_lake_is_opened_anew(uri: Uri, people: pa.Table) -> None:
    write_deltalake(uri("people"), people)
    table = DeltaTable(uri("people"))
    table.place.lake.close()
    with pytest.raises(CatalogError, match="is closed"):
        table.to_arrow()
    assert DeltaTable(uri("people")).count() == 3


def test_many_threads_open_one_lake(uri: Uri, people: pa.Table) -> None:
    write_deltalake(uri("people"), people)
    errors: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(5):
                write_deltalake(uri("people"), people, mode="append")
                DeltaTable(uri("people")).to_arrow()
        except BaseException as e:
            errors.append(e)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert DeltaTable(uri("people")).version() == 20


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_opens_its_own(uri: Uri, kind: str, people: pa.Table) -> None:
    if kind == "duckdb":
        pytest.skip("DuckDB's threads do not survive a fork, and its file belongs to the parent")
    write_deltalake(uri("people"), people)
    table = DeltaTable(uri("people"))
    child = os.fork()
    if child == 0:
        code = 1
        try:
            mine = DeltaTable(uri("people"))
            code = 0 if mine.place.lake is not table.place.lake and mine.version() == 0 else 2
            del table
            gc.collect()  # the parent's connection is not the child's to close
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    write_deltalake(table, people, mode="append")
    assert table.count() == 6


# --- a transaction without a lake at hand


def test_begin(uri: Uri, people: pa.Table) -> None:
    with deltaduck.begin(uri("any")) as tx:
        tx.write("a", people)
        tx.write("b", people)
        lake = tx.lake
    gc.collect()
    assert lake.closed
    assert DeltaTable(uri("a")).history()[0]["commit_id"] == DeltaTable(uri("b")).history()[0]["commit_id"]
    with pytest.raises(deltaduck.QueryError), deltaduck.begin(uri("a")) as tx:
        tx.sql("DELETE FROM a; SELECT nonsense FROM a")
    tx = deltaduck.begin(uri("a"), "serializable")
    tx.write("a", people)
    tx.rollback()
    tx = deltaduck.begin(uri("a"))
    assert tx.sql("SELECT count(*) FROM a").fetchall() == [(3,)]
    tx.write("a", people)
    tx.commit()
    assert DeltaTable(uri("a")).count() == 6
    with pytest.raises(deltaduck.DeltaduckError, match="committed"):
        tx.write("a", people)


# --- plain paths


@pytest.fixture
def path(tmp_path: Path, days: pa.Table) -> str:
    """A Delta table that somebody else wrote."""
    deltalake = pytest.importorskip("deltalake")
    deltalake.write_deltalake(tmp_path / "theirs", days, partition_by="day")
    deltalake.write_deltalake(tmp_path / "theirs", days, mode="append")
    return str(tmp_path / "theirs")


def test_a_plain_path_is_read(path: str, days: pa.Table) -> None:
    import deltalake

    table = DeltaTable(path)
    assert DeltaTable.is_deltatable(path)
    assert not DeltaTable.is_deltatable(path + "/day=mon")
    assert (table.version(), table.count(), table.to_arrow().num_rows) == (1, 12, 12)
    assert DeltaTable(Path(path), version=0).to_pyarrow_table(filters=[("n", ">", 4)]).num_rows == 2
    deltalake.write_deltalake(path, days, mode="append")
    assert table.version() == 1
    table.update_incremental()
    assert (table.version(), table.to_polars().height) == (2, 18)
    with pytest.raises(TableNotFoundError, match="has no _delta_log"):
        DeltaTable(path + "/nowhere")
    with pytest.raises(UriError, match="is a file, not a Delta table: deltasql://"):
        DeltaTable(table.file_uris()[0])


def test_a_plain_path_is_not_written_to(path: str, days: pa.Table) -> None:
    before = sorted(p for p in Path(path).rglob("*"))
    table = DeltaTable(path)
    for write in (
        lambda: write_deltalake(path, days, mode="append"),
        lambda: write_deltalake(table, days, mode="append"),
        lambda: DeltaTable.create(path, SCHEMA),
        lambda: table.delete("n = 1"),
        lambda: table.write(days),
        table.create_checkpoint,
    ):
        with pytest.raises(UnsupportedFeatureError, match=r"lake\.import_table"):
            write()
    assert sorted(p for p in Path(path).rglob("*")) == before
