"""A store that fails, lies dead, answers late or is written to by others: nothing committed is lost, nothing is overwritten."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import deltalake
import duckdb
import obstore
import pytest
import stores

import deltaduck
from deltaduck import Lake, MirrorError, StorageError

QUICK = {"max_retries": "2", "retry_timeout": "3s", "timeout": "3s", "connect_timeout": "1s"}
Open = Callable[..., Lake]


@pytest.fixture
def lake(open_on_store: Open, proxy: stores.Proxy) -> Lake:
    """A lake that reaches its store through the proxy, and loses patience soon. Its table t has one version."""
    lake = open_on_store(aws_endpoint_url=f"http://127.0.0.1:{proxy.port}", **QUICK)
    lake.create_table("t", {"n": "BIGINT"})
    return lake


def published(lake: Lake, s3: stores.S3) -> list[int]:
    """The rows of t that another reader sees."""
    table = deltalake.DeltaTable(lake.table("t").detail()["location"], storage_options=s3.options())
    return sorted(table.to_pyarrow_table()["n"].to_pylist())


def first(times: int, fault: Any, method: str, part: str) -> Callable[[str, str], Any]:
    """The fault, for the first requests of that method on paths that hold `part`."""
    seen = count()
    return lambda m, path: fault if m == method and part in path and next(seen) < times else None


def objects(s3: stores.S3, lake: Lake) -> list[str]:
    prefix = lake.table("t").detail()["location"].removeprefix(f"s3://{s3.bucket}/")
    return sorted(o["path"].removeprefix(prefix + "/") for o in obstore.list(s3.store(), prefix).collect())


@pytest.mark.parametrize("status", [500, 503])
def test_what_passes_is_tried_again(lake: Lake, proxy: stores.Proxy, s3: stores.S3, status: int) -> None:
    failing = {m: first(1, status, m, "") for m in ("PUT", "GET", "HEAD")}
    proxy.fault = lambda method, path: failing[method](method, path) if method in failing else None
    lake.write("t", [{"n": 1}])
    lake.sql("INSERT INTO t SELECT 2")
    assert sorted(lake.sql("FROM t").fetchall()) == [(1,), (2,)]
    assert lake.mirror.status()[0]["pending"] == 0
    assert published(lake, s3) == [1, 2]


def test_data_that_cannot_be_written_is_not_committed(lake: Lake, proxy: stores.Proxy, s3: stores.S3) -> None:
    before = objects(s3, lake)
    proxy.fault = lambda method, path: 503 if method == "PUT" else None
    for write in (lambda: lake.write("t", [{"n": 1}]), lambda: lake.sql("INSERT INTO t SELECT * FROM range(20000)")):
        begun = time.monotonic()
        with pytest.raises(StorageError, match=r"cannot write s3://.*503"):
            write()
        assert time.monotonic() - begun < 10
    proxy.fault = lambda method, path: None
    assert lake.table("t").version() == 0
    assert objects(s3, lake) == before
    assert lake.write("t", [{"n": 1}]) == 1


@pytest.mark.parametrize("open_on_store", ["sqlite"], indirect=True)
def test_a_file_cut_off_in_its_middle_is_not_committed(lake: Lake, proxy: stores.Proxy, s3: stores.S3) -> None:
    """The last request of an upload in parts fails."""
    before = objects(s3, lake)
    proxy.fault = lambda method, path: 500 if method == "POST" and "uploadId" in path else None
    with pytest.raises(StorageError, match=r"cannot write s3://.*500"):
        lake.write("t", "SELECT CAST(hash(i) >> 1 AS BIGINT) AS n FROM range(1300000) r(i)")
    assert lake.table("t").version() == 0
    assert objects(s3, lake) == before


def test_a_commit_that_cannot_be_published_is_kept(lake: Lake, proxy: stores.Proxy, s3: stores.S3) -> None:
    proxy.fault = lambda method, path: 500 if method == "PUT" and "_delta_log" in path else None
    lake.write("t", [{"n": 1}])
    assert lake.sql("FROM t").fetchall() == [(1,)]
    (state,) = lake.mirror.status()
    assert state["pending"] == 1
    assert "500" in state["last_error"]
    assert stores.S3.secret not in state["last_error"]
    with pytest.raises(MirrorError, match="500"):
        lake.mirror.reconcile()
    proxy.fault = lambda method, path: None
    assert lake.mirror.reconcile() == 1
    assert published(lake, s3) == [1]
    assert lake.mirror.verify("t")


@pytest.mark.parametrize("path", ["_delta_log", "part-"])
def test_an_answer_that_is_lost_loses_nothing(lake: Lake, proxy: stores.Proxy, s3: stores.S3, path: str) -> None:
    """The file is there, and we do not know. Trying again finds our own bytes."""
    proxy.fault = first(1, "lose", "PUT", path)
    try:
        lake.write("t", [{"n": 1}])
    except StorageError:
        assert path == "part-"
        lake.write("t", [{"n": 1}])
    lake.mirror.reconcile()
    assert lake.mirror.status()[0]["diverged"] == 0
    assert published(lake, s3) == [1]
    assert len([name for name in objects(s3, lake) if name.startswith("part-")]) == 1


def test_half_an_answer_is_no_answer(lake: Lake, proxy: stores.Proxy) -> None:
    lake.write("t", "SELECT * FROM range(100000) r(n)")
    proxy.fault = lambda method, path: "cut" if method == "GET" and "part-" in path else None
    with pytest.raises((deltaduck.DeltaduckError, duckdb.Error)):
        lake.sql("SELECT sum(n) FROM t").fetchall()
    proxy.fault = first(1, "cut", "GET", "part-")
    try:
        rows = lake.sql("SELECT sum(n) FROM t").fetchall()
    except (deltaduck.DeltaduckError, duckdb.Error):
        rows = lake.sql("SELECT sum(n) FROM t").fetchall()
    assert rows == [(4_999_950_000,)]


@pytest.mark.parametrize("open_on_store", ["sqlite"], indirect=True)
def test_a_slow_store_is_waited_for_and_not_for_ever(lake: Lake, proxy: stores.Proxy, s3: stores.S3) -> None:
    proxy.fault = first(2, 0.5, "PUT", "")
    lake.write("t", [{"n": 1}])
    assert published(lake, s3) == [1]
    proxy.fault = lambda method, path: 5.0 if method == "PUT" and "part-" in path else None
    begun = time.monotonic()
    with pytest.raises(StorageError, match="does not answer"):
        lake.write("t", [{"n": 2}])
    assert time.monotonic() - begun < 20
    proxy.fault = lambda method, path: None
    assert lake.table("t").version() == 1


def test_a_foreign_commit_is_never_overwritten(lake: Lake, s3: stores.S3) -> None:
    lake.write("t", [{"n": 1}])
    path = lake.table("t").detail()["location"]
    key = f"{path}/_delta_log/{2:020d}.json".removeprefix(f"s3://{s3.bucket}/")
    foreign = json.dumps({"commitInfo": {"operation": "FOREIGN"}}).encode()
    with lake.begin() as tx:
        tx.write("t", [{"n": 2}])
        obstore.put(s3.store(), key, foreign)  # between our files and our log
    assert lake.sql("SELECT count(*) FROM t").fetchall() == [(2,)]
    assert lake.mirror.status()[0]["diverged"] == 1
    with pytest.raises(MirrorError, match="somebody else"):
        lake.mirror.reconcile()
    assert bytes(obstore.get(s3.store(), key).bytes()) == foreign
    assert not lake.mirror.verify("t")


def test_half_of_our_own_commit_is_not_somebody_elses(lake: Lake, proxy: stores.Proxy, s3: stores.S3) -> None:
    """The answer to a publication is lost, and what is read to see whose the file is comes cut off."""
    lose, cut = first(1, "lose", "PUT", "_delta_log"), first(20, "cut", "GET", ".json")
    proxy.fault = lambda method, path: lose(method, path) or cut(method, path)
    lake.write("t", [{"n": 1}])
    proxy.fault = lambda method, path: None
    assert lake.mirror.status()[0]["diverged"] == 0
    lake.mirror.reconcile()
    assert published(lake, s3) == [1]
    assert lake.mirror.verify("t")


def test_a_thread_publishes_when_the_store_is_back(tmp_path: Path, url: str, proxy: stores.Proxy, s3: stores.S3) -> None:
    options = s3.options() | {"aws_endpoint_url": f"http://127.0.0.1:{proxy.port}"} | QUICK
    with deltaduck.connect(tmp_path / "lake.sqlite", storage=url, storage_options=options, mirror="async") as lake:
        lake.create_table("t", {"n": "BIGINT"})
        lake.mirror.reconcile()
        proxy.fault = lambda method, path: 503 if "_delta_log" in path else None
        lake.write("t", [{"n": 1}])
        lake.write("t", [{"n": 2}])
        while not lake.mirror.status()[0]["last_error"]:
            time.sleep(0.02)
        assert lake.sql("SELECT count(*) FROM t").fetchall() == [(2,)]
        proxy.fault = lambda method, path: None
        while lake.mirror.status()[0]["pending"]:  # nobody asks it to
            time.sleep(0.02)
        assert published(lake, s3) == [1, 2]


@pytest.mark.parametrize("open_on_store", ["sqlite"], indirect=True)
def test_the_server_dies_between_the_files_and_the_log(open_on_store: Open, s3: stores.S3) -> None:
    lake = open_on_store(**QUICK)
    lake.create_table("t", {"n": "BIGINT"})
    tx = lake.begin()
    tx.write("t", [{"n": 1}])
    s3.kill()
    try:
        tx.commit()
        assert lake.table("t").version() == 1
        assert lake.mirror.status()[0]["pending"] == 1
        with pytest.raises(StorageError, match="does not answer"):
            lake.write("t", [{"n": 2}])
        with pytest.raises(StorageError, match="does not answer"):
            lake.table("t").to_arrow()
    finally:
        s3.start()
    assert lake.write("t", [{"n": 2}]) == 2  # and publishes what is owed
    lake.mirror.reconcile()
    assert lake.mirror.status()[0]["pending"] == 0
    assert published(lake, s3) == [1, 2]
    assert lake.mirror.verify("t")
