"""Tables on an object store: all that a lake does, against a real S3 server, with the catalog in each database."""

from __future__ import annotations

import json
import pickle
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import deltalake
import duckdb
import obstore
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import stores
from pyroaring import BitMap

import deltaduck
from deltaduck import CatalogError, Lake, StorageError, TableNotFoundError, storage
from deltaduck.storage import remote

ODD = ["a b%", "é/ü", "?x#[1]*", "it's", 'say "so"', None]  # partition values that want quoting everywhere


def names(s3: stores.S3, url: str) -> list[str]:
    """What lies below a place, without its own name."""
    prefix = url.removeprefix(f"s3://{s3.bucket}/")
    return sorted(o["path"].removeprefix(prefix + "/") for o in obstore.list(s3.store(), prefix).collect())


def httpfs(lake: Lake, directory: Path) -> None:
    """Let the lake's DuckDB load httpfs."""
    pytest.importorskip("duckdb_extension_httpfs", reason="no wheel has httpfs for this DuckDB")
    from duckdb_extensions import import_extension

    lake.con.execute(f"SET extension_directory = '{directory}'")
    import_extension("httpfs", con=lake.con)


# --- what a lake does


def test_what_is_written_is_read_again(store_lake: Lake, people: pa.Table, s3: stores.S3, url: str) -> None:
    assert store_lake.write("people", people) == 0
    store_lake.write("people", [{"id": 4, "name": "Cy"}])
    assert store_lake.sql("SELECT id, name FROM people ORDER BY id").fetchall() == [(1, "Ada"), (2, "Bo"), (3, None), (4, "Cy")]
    assert store_lake.sql("SELECT count(*) FROM people AT (VERSION => 0)").fetchall() == [(3,)]
    assert store_lake.table("people").detail()["location"] == f"{url}/people"
    found = names(s3, url)
    assert [n for n in found if n.endswith(".json")] == [f"people/_delta_log/{v:020d}.json" for v in (0, 1)]
    assert len([n for n in found if n.endswith(".parquet")]) == 2
    assert len(found) == 4  # nothing else: no scratch, no directories


def test_partitions_of_any_name(store_lake: Lake, s3: stores.S3) -> None:
    store_lake.write("odd", [{"day": day, "n": n} for n, day in enumerate(ODD)], partition_by="day")
    assert store_lake.sql("SELECT day FROM odd ORDER BY n").fetchall() == [(day,) for day in ODD]
    assert store_lake.sql("SELECT n FROM odd WHERE day = '?x#[1]*'").fetchall() == [(2,)]
    seen = deltalake.DeltaTable(store_lake.table("odd").detail()["location"], storage_options=s3.options())
    rows = seen.to_pyarrow_table().sort_by("n")
    assert rows["day"].to_pylist() == ODD


def test_changes_and_transactions(store_lake: Lake, people: pa.Table) -> None:
    store_lake.write("people", people)
    store_lake.sql("DELETE FROM people WHERE id = 1")
    store_lake.sql("UPDATE people SET name = 'X' WHERE name IS NULL")
    with store_lake.begin() as tx:
        tx.write("people", [{"id": 9, "name": "Z"}])
        tx.write("log", [{"what": "nine"}])
    assert store_lake.sql("FROM people ORDER BY id").fetchall() == [(2, "Bo"), (3, "X"), (9, "Z")]
    assert store_lake.sql("FROM log").fetchall() == [("nine",)]
    assert {row[2] for row in store_lake.table("people").changes(1, 1).fetchall()} == {"delete", "insert"}


def test_what_is_rolled_back_leaves_no_files(store_lake: Lake, people: pa.Table, s3: stores.S3, url: str) -> None:
    tx = store_lake.begin()
    tx.write("people", people, partition_by="id")
    assert len(names(s3, url)) == 3
    tx.rollback()
    assert names(s3, url) == []


def test_a_write_that_fails_halfway_leaves_no_files(store_lake: Lake, s3: stores.S3, url: str) -> None:
    rows = "SELECT CASE WHEN i < 200000 THEN i ELSE error('no more') END AS n FROM range(200001) r(i)"
    with pytest.raises(deltaduck.DeltaduckError, match="no more"):
        store_lake.write("t", rows)
    assert names(s3, url) == []
    assert store_lake.catalog.access.unfinished == {}


def test_a_large_file_goes_in_parts(proxy: stores.Proxy, tmp_path: Path, s3: stores.S3, url: str) -> None:
    with deltaduck.connect(tmp_path / "lake.duckdb", storage=url, storage_options=s3.options(proxy.port)) as lake:
        lake.write("t", "SELECT hash(i) AS h FROM range(1300000) r(i)")
        assert lake.sql("SELECT count(DISTINCT h) FROM t").fetchall() == [(1_300_000,)]
    assert len([path for method, path, *_ in proxy.seen if method == "PUT" and "partNumber" in path]) > 1


def test_only_needed_files_and_bytes_are_read(open_on_store: Callable[..., Lake], proxy: stores.Proxy) -> None:
    lake = open_on_store(aws_endpoint_url=f"http://127.0.0.1:{proxy.port}")
    for start in (0, 100_000, 200_000):
        lake.write("t", f"SELECT i, md5(i::TEXT) AS long FROM range({start}, {start + 100_000}) r(i)")
    (file,) = lake.table("t").files("i = 150000").to_pylist()
    proxy.seen.clear()
    assert lake.sql("SELECT sum(i) FROM t WHERE i BETWEEN 100000 AND 199999").fetchall() == [(14_999_950_000,)]
    assert {path.rsplit("/", 1)[-1] for _, path, *_ in proxy.seen} == {file["path"]}
    read = sum(size for method, _, _, size in proxy.seen if method == "GET")
    assert read < file["size"] / 3  # the text is most of the file


def test_the_catalog_remembers_the_place_and_nothing_else(open_on_store: Callable[..., Lake], people: pa.Table) -> None:
    with open_on_store() as lake:
        lake.write("people", people)
    with open_on_store(aws_secret_access_key="another") as lake, pytest.raises((StorageError, duckdb.Error), match="refuses"):
        lake.sql("FROM people").fetchall()


def test_the_environment_gives_what_options_do_not(
    s3: stores.S3, url: str, people: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.options().items():
        monkeypatch.setenv(name.upper() if name.startswith("aws") else "AWS_ALLOW_HTTP", value)
    with deltaduck.connect(tmp_path / "lake.sqlite", storage=url) as lake:
        lake.write("people", people)
        assert lake.sql("SELECT count(*) FROM people").fetchall() == [(3,)]


# --- other readers


def test_other_readers_see_every_version(store_lake: Lake, s3: stores.S3) -> None:
    options = s3.options()
    for n in range(12):
        store_lake.write("t", [{"n": n}])
    store_lake.sql("DELETE FROM t WHERE n = 3")
    path = store_lake.table("t").detail()["location"]
    for version in (0, 5, 10, 12):
        wanted = sorted(store_lake.sql(f"FROM t AT (VERSION => {version})").fetchall())
        assert sorted(deltalake.DeltaTable(path, version, options).to_pyarrow_table()["n"].to_pylist()) == [n for (n,) in wanted]
        assert sorted(pl.scan_delta(path, version=version, storage_options=options).collect().rows()) == wanted
    assert f"_delta_log/{10:020d}.checkpoint.parquet" in names(s3, path)
    verified = store_lake.mirror.verify("t")
    assert verified, str(verified)
    assert (verified.versions, verified.checkpoint) == (13, 10)


@pytest.mark.parametrize("whole", [1, remote.WHOLE])
def test_a_checkpoint_is_written_once(
    store_lake: Lake, s3: stores.S3, whole: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(remote, "WHOLE", whole)
    root = f"{store_lake.storage}/t"
    root = storage.normalize(root, store_lake.catalog.access)
    for content, expected in ((b"first", True), (b"second", False)):
        source = tmp_path / "source"
        source.write_bytes(content)
        assert storage.put_file_if_absent(root, "c.parquet", str(source)) is expected
        assert not source.exists()
    assert storage.read(root, "c.parquet") == b"first"


def test_any_connection_reads_through_the_lake(store_lake: Lake, people: pa.Table) -> None:
    store_lake.write("people", people)
    with duckdb.connect() as con:
        deltaduck.register(con, store_lake)
        assert con.sql("SELECT count(*) FROM dl_scan('people', filter := 'id > 1')").fetchall() == [(2,)]
        assert con.sql("SELECT count(*) FROM dl_changes('people')").fetchall() == [(3,)]


def test_a_plain_client_of_a_duckdb_catalog_is_told_why(s3: stores.S3, url: str, people: pa.Table, tmp_path: Path) -> None:
    with deltaduck.connect(tmp_path / "lake.duckdb", storage=url, storage_options=s3.options()) as lake:
        lake.create_table("empty", people.schema)
        lake.write("people", people)
        assert lake.sql("FROM empty").fetchall() == []
    with duckdb.connect(str(tmp_path / "lake.duckdb")) as con:
        assert con.sql("FROM empty").fetchall() == []
        with pytest.raises(duckdb.Error, match="object store"):
            con.sql("FROM people").fetchall()


def test_httpfs_reads_where_it_can_be_loaded(open_on_store: Callable[..., Lake], tmp_path: Path, proxy: stores.Proxy) -> None:
    lake = open_on_store(aws_endpoint_url=f"http://127.0.0.1:{proxy.port}")
    httpfs(lake, tmp_path)
    lake.write("odd", [{"day": day, "n": n} for n, day in enumerate(["a b%", "é/ü"])], partition_by="day")
    assert "deltaduck" not in lake.sql("FROM odd").explain()
    assert lake.sql("SELECT day FROM odd ORDER BY n").fetchall() == [("a b%",), ("é/ü",)]
    assert lake.catalog.access.has_httpfs
    lake.write("odd", [{"day": "?", "n": 9}])  # a name that httpfs takes for something else
    assert lake.sql("SELECT day, n FROM odd WHERE n > 0 ORDER BY n").fetchall() == [("é/ü", 1), ("?", 9)]
    secrets = lake.con.execute("SELECT secret_string FROM duckdb_secrets()").fetchall()
    assert secrets
    assert stores.S3.secret not in str(secrets)


def test_httpfs_is_not_used_with_somebody_elses_secret(s3: stores.S3, url: str, tmp_path: Path) -> None:
    def connect() -> Lake:
        return deltaduck.connect(tmp_path / "lake.duckdb", storage=url, storage_options=s3.options())

    with connect() as one, connect() as two:  # of one DuckDB
        httpfs(one, tmp_path / "extensions")
        one.write("t", [{"n": 1}])
        assert one.sql("FROM t").fetchall() == two.sql("FROM t").fetchall() == [(1,)]
        assert len(one.con.execute("FROM duckdb_secrets()").fetchall()) == 1


# --- importing


def test_a_table_is_imported_from_its_url(open_on_store: Callable[..., Lake], s3: stores.S3, url: str) -> None:
    path, options = url.replace("/data", "/theirs"), s3.options()
    for n in range(3):
        deltalake.write_deltalake(path, pa.table({"n": [n]}), mode="append", storage_options=options)
    deltalake.DeltaTable(path, storage_options=options).create_checkpoint()
    lake = open_on_store()
    imported = lake.import_table(path)
    assert (imported.table, imported.versions, imported.files) == ("theirs", (0, 2), 3)
    assert sorted(lake.sql("FROM theirs").fetchall()) == [(0,), (1,), (2,)]
    assert lake.import_table(path, "again", checkpoint_only=True, dry_run=True).checkpoint == 2
    deltalake.write_deltalake(path, pa.table({"n": [3]}), mode="append", storage_options=options)
    assert lake.import_table(path, "theirs", resume=True, skip_validation=True).versions is not None
    lake.write("theirs", [{"n": 4}])
    assert lake.mirror.status()[0]["pending"] == 0
    assert deltalake.DeltaTable(path, storage_options=options).to_pyarrow_table().num_rows == 5
    with pytest.raises(TableNotFoundError, match="no _delta_log"):
        lake.import_table(path + "/nothing")


def test_deletion_vectors_are_read_from_the_store(open_on_store: Callable[..., Lake], s3: stores.S3, url: str) -> None:
    root, key = url.replace("/data", "/hidden"), url.replace("/data", "/hidden").removeprefix(f"s3://{s3.bucket}/")
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"n": list(range(5))}), sink)
    bitmap = BitMap([1, 3]).serialize()
    data = struct.pack("<IQI", 1681511377, 1, 0) + bitmap
    vector = b"\1" + struct.pack(">I", len(data)) + data + struct.pack(">I", zlib.crc32(data))
    described = {
        "storageType": "p", "pathOrInlineDv": f"{root}/vector.bin", "offset": 1, "sizeInBytes": len(data), "cardinality": 2,
    }  # fmt: skip
    schema = {"type": "struct", "fields": [{"name": "n", "type": "long", "nullable": True, "metadata": {}}]}
    actions = [
        {"protocol": {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": ["deletionVectors"],
                      "writerFeatures": ["deletionVectors"]}},
        {"metaData": {"id": "x", "format": {"provider": "parquet", "options": {}}, "schemaString": json.dumps(schema),
                      "partitionColumns": [], "configuration": {}}},
        {"add": {"path": f"{root}/n.parquet", "partitionValues": {}, "size": sink.tell(), "modificationTime": 1,
                 "dataChange": True, "stats": '{"numRecords":5}', "deletionVector": described}},
    ]  # fmt: skip
    commit = "".join(json.dumps(action) + "\n" for action in actions).encode()
    for name, content in (("n.parquet", sink.getvalue()), ("vector.bin", vector), (f"_delta_log/{0:020d}.json", commit)):
        obstore.put(s3.store(), f"{key}/{name}", bytes(content))
    lake = open_on_store()
    lake.import_table(root)
    assert sorted(lake.sql("FROM hidden").fetchall()) == [(0,), (2,), (4,)]


def test_a_local_table_may_name_files_on_a_store(s3: stores.S3, url: str, tmp_path: Path, people: pa.Table) -> None:
    with deltaduck.connect(tmp_path / "lake.sqlite", storage_options=s3.options()) as lake:
        lake.create_table("source", people.schema, location=f"{url}/source")
        lake.write("source", people)
        clone = tmp_path / "clone"
        (clone / "_delta_log").mkdir(parents=True)
        lines = obstore.get(s3.store(), f"{url}/source/_delta_log/{0:020d}.json".removeprefix(f"s3://{s3.bucket}/")).bytes()
        adds = obstore.get(s3.store(), f"{url}/source/_delta_log/{1:020d}.json".removeprefix(f"s3://{s3.bucket}/")).bytes()
        moved = bytes(adds).replace(b'"path":"', f'"path":"{url}/source/'.encode())
        (clone / "_delta_log" / f"{0:020d}.json").write_bytes(bytes(lines))
        (clone / "_delta_log" / f"{1:020d}.json").write_bytes(moved)
        lake.import_table(clone)
        assert lake.sql("SELECT count(*) FROM clone").fetchall() == [(3,)]


# --- secrets


def test_secrets_are_nowhere(
    open_on_store: Callable[..., Lake], people: pa.Table, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level("DEBUG")
    with open_on_store() as lake:
        lake.write("people", people)
        lake.sql("FROM people").fetchall()
        snapshot = lake.snapshot("people")
        shown = [repr(lake), str(lake.table("people").detail()), repr(lake.catalog.access), repr(snapshot), repr(vars(lake))]
        shown.append(str(pickle.loads(pickle.dumps(snapshot.location))))
        if lake.catalog.database == "postgres":
            for table in ("dl_tables", "dl_table_versions", "dl_add_files", "dl_mirror_status"):
                shown.append(str(lake.catalog.fetch(f"SELECT * FROM {table}")))
    with open_on_store(aws_secret_access_key="wrong-" + stores.S3.secret) as lake, pytest.raises(StorageError) as e:
        lake.write("others", people)
    shown += [str(e.value), str(e.value.__cause__), caplog.text]
    files = [p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()]
    assert stores.S3.secret not in "".join(shown)
    assert not any(stores.S3.secret.encode() in content for content in files)


def test_two_lakes_have_credentials_of_their_own(s3: stores.S3, url: str, tmp_path: Path, people: pa.Table) -> None:
    with deltaduck.connect(tmp_path / "one.sqlite", storage=url, storage_options=s3.options()) as good:
        good.write("people", people)
        wrong = s3.options() | {"aws_secret_access_key": "wrong"}
        with (
            deltaduck.connect(tmp_path / "one.sqlite", storage=url, storage_options=wrong) as bad,
            duckdb.connect() as con,
        ):
            for lake, expected in ((good, True), (bad, False), (good, True)):
                deltaduck.register(con, lake)
                if expected:
                    assert con.sql("SELECT count(*) FROM dl_scan('people')").fetchall() == [(3,)]
                else:
                    with pytest.raises(duckdb.Error, match="refuses"):
                        con.sql("FROM dl_scan('people')").fetchall()


# --- what cannot work says so


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"aws_secret_access_key": "wrong"}, "refuses .*check the credentials"),
        ({"aws_endpoint_url": "http://127.0.0.1:1", "max_retries": 3}, "does not answer.*endpoint"),
        ({"allow_http": "false"}, "plain http.*allow_http"),
        ({"aws_nonsense": "SECRET"}, "aws_nonsense.*storage_options"),
        ({"timeout": "never SECRET"}, "parse a value.*storage_options"),
        ({"retry_timeout": "never"}, "retry_timeout"),
    ],
)
def test_a_store_that_cannot_be_used(
    s3: stores.S3, url: str, tmp_path: Path, people: pa.Table, options: dict[str, Any], said: str
) -> None:
    begun = time.monotonic()
    with pytest.raises(StorageError, match=said) as e:
        with deltaduck.connect(tmp_path / "lake.duckdb", storage=url, storage_options=s3.options() | options) as lake:
            lake.write("people", people)
    assert time.monotonic() - begun < 10
    assert "SECRET" not in str(e.value)
    with deltaduck.connect(tmp_path / "lake.duckdb", storage=url, storage_options=s3.options()) as lake:
        assert lake.write("people", people) == 0  # nothing was left behind


def test_a_bucket_that_is_not_there(s3: stores.S3, tmp_path: Path, people: pa.Table) -> None:
    with deltaduck.connect(tmp_path / "lake.duckdb", storage="s3://nobodys/x", storage_options=s3.options()) as lake:
        with pytest.raises(StorageError, match="no such bucket"):
            lake.write("people", people)
        with pytest.raises(StorageError, match="no such bucket"):
            lake.import_table("s3://nobodys/x/t")


@pytest.mark.parametrize(
    "url",
    [
        "s3://key:secret@bucket/path",
        "s3://",
        "s3:///path",
        "s3://bucket/a?token=secret",
        "s3://bucket/../secret",
        "ftp://secret@x/y",
    ],
)
def test_a_url_that_is_no_place(url: str) -> None:
    with pytest.raises(StorageError) as e:
        storage.normalize(url)
    assert "secret" not in str(e.value)


def test_urls_of_other_stores_are_understood() -> None:
    for url in ("gs://bucket/path", "az://container/path", "abfss://container@account.dfs.core.windows.net/path"):
        assert storage.normalize(url + "/") == url
        assert storage.is_remote(storage.normalize(url))


def test_a_missing_data_file_is_named(store_lake: Lake, people: pa.Table, s3: stores.S3, url: str) -> None:
    store_lake.write("people", people)
    (file,) = [n for n in names(s3, url) if n.endswith(".parquet")]
    obstore.delete(s3.store(), url.removeprefix(f"s3://{s3.bucket}/") + "/" + file)
    with pytest.raises(deltaduck.LogCorruptError, match="missing"):
        store_lake.table("people").to_arrow()


def test_a_new_lake_in_memory_wants_a_place() -> None:
    with pytest.raises(CatalogError, match="storage="):
        deltaduck.connect(storage_options={"aws_region": "x"})


# --- upkeep


def test_upkeep(store_lake: Lake, s3: stores.S3, url: str) -> None:
    lake, table = store_lake, f"{url}/t"
    for n in range(4):
        lake.write("t", [{"day": day, "n": n} for day in ("a b", "x/y")], partition_by="day")
    assert len([name for name in names(s3, table) if name.endswith(".parquet")]) == 8
    lake.sql("OPTIMIZE t ZORDER BY (n)")
    lake.sql("OPTIMIZE t")
    obstore.put(s3.store(), f"{table}/day=a b/orphan.parquet".removeprefix(f"s3://{s3.bucket}/"), b"")
    time.sleep(0.01)
    gone = lake.table("t").vacuum(0, dry_run=False, enforce_retention_duration=False, full=True)
    assert len(gone) == 9
    assert len([name for name in names(s3, table) if name.endswith(".parquet")]) == 2
    assert sorted(lake.sql("FROM t").fetchall()) == sorted((d, n) for d in ("a b", "x/y") for n in range(4))
    lake.write("t", [{"day": "z", "n": 9}])
    lake.sql("RESTORE TABLE t TO VERSION AS OF 4")
    assert lake.sql("SELECT count(*) FROM t").fetchall() == [(8,)]
    lake.sql("CREATE TABLE c SHALLOW CLONE t")
    assert lake.sql("SELECT count(*) FROM c").fetchall() == [(8,)]
    rows = deltalake.DeltaTable(f"{url}/t", storage_options=s3.options()).to_pyarrow_table()
    assert rows.num_rows == 8
    assert lake.mirror.verify("t")


def test_files_that_come_and_go(store_lake: Lake, s3: stores.S3) -> None:
    store_lake.write("t", pa.table({"p": ["a b", "c"], "n": [1, 2]}), partition_by="p")
    t = store_lake.table("t")
    place = t.detail()["location"].removeprefix(f"s3://{s3.bucket}/")
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"n": [3]}), sink)
    data = sink.getvalue().to_pybytes()
    obstore.put(s3.store(), f"{place}/p=c/theirs.parquet", data)
    action = deltaduck.AddAction("p=c/theirs.parquet", len(data), {"p": "c"}, 1, True, '{"numRecords": 1}')
    t.create_write_transaction([action], "append", t.schema())
    assert sorted(t.to_arrow()["n"].to_pylist()) == [1, 2, 3]
    t.generate()
    held = bytes(obstore.get(s3.store(), f"{place}/_symlink_format_manifest/p=c/manifest").bytes()).decode()
    assert sorted(held.splitlines()) == sorted(t.file_uris([("p", "=", "c")]))
    obstore.delete(s3.store(), [f"{place}/p=c/theirs.parquet"])
    assert t.repair()["files_removed"] == ["p=c/theirs.parquet"]
    assert sorted(t.to_arrow()["n"].to_pylist()) == [1, 2]
    query = deltaduck.QueryBuilder().register("x", t).execute("SELECT n FROM x WHERE p = 'c'")
    assert query.read_all()["n"].to_pylist() == [2]


def test_parquet_files_on_a_store_become_a_table(store_lake: Lake, s3: stores.S3, url: str) -> None:
    for n in range(2):
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table({"n": [n]}), sink)
        key = f"{url}/raw/day=d{n}/x.parquet".removeprefix(f"s3://{s3.bucket}/")
        obstore.put(s3.store(), key, sink.getvalue().to_pybytes())
    store_lake.convert(f"{url}/raw")
    assert sorted(store_lake.sql("SELECT n, day FROM raw WHERE n > 0").fetchall()) == [(1, "d1")]
    assert deltalake.DeltaTable(f"{url}/raw", storage_options=s3.options()).to_pyarrow_table().num_rows == 2


def test_tables_by_their_url(store_lake: Lake, people: pa.Table, s3: stores.S3) -> None:
    store_lake.write("people", people)
    url = store_lake.table("people").detail()["location"]
    table = deltaduck.DeltaTable(url, storage_options=s3.options())
    assert deltaduck.DeltaTable.is_deltatable(url, s3.options())
    assert not deltaduck.DeltaTable.is_deltatable(url + "/nothing", s3.options())
    assert table.to_arrow().num_rows == 3
    assert [uri.rsplit("/", 1)[0] for uri in table.file_uris()] == [url]
    store_lake.write("people", people)
    table.update_incremental()
    assert table.to_arrow().num_rows == 6
    with pytest.raises(deltaduck.UnsupportedFeatureError, match="filesystem"):
        table.to_pyarrow_dataset()
