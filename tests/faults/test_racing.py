"""Eight processes of ours commit to one table on PostgreSQL and S3, while somebody else writes to its ``_delta_log`` by path."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import deltalake
import obstore
import pyarrow as pa
import pytest
import stores

import deltaduck
from deltaduck import CommitConflictError, Lake, MirrorError

WRITERS, COMMITS, FOREIGN = 8, 3, 3
Place = Callable[[str, Path], str]

# Born by fork, so that they need not import everything anew. A commit that read the table under numbers which an adoption has
# given to others conflicts, and is made again.
CROWD = textwrap.dedent("""
    import json, os, sys, deltaduck
    target, options, writers, commits, mode = sys.argv[1:]
    options, writers, commits = json.loads(options), int(writers), int(commits)

    def write(me):
        with deltaduck.connect(target, storage_options=options, mirror=mode) as lake:
            for n in range(commits):
                while True:
                    try:
                        lake.write("t", [{"writer": me, "n": n}])
                        break
                    except deltaduck.CommitConflictError:
                        pass

    def born(me):
        if child := os.fork():
            return child
        code = 1
        try:
            write(me)
            code = 0
        finally:
            os._exit(code)

    sys.exit(any([os.waitpid(pid, 0)[1] for pid in [born(me) for me in range(writers)]]))
""")


@pytest.fixture
def race(tmp_path: Path, place: Place, s3: stores.S3, url: str) -> tuple[Lake, list[str]]:
    """A lake with an empty table, and what its crowd is told."""
    target = place("postgres", tmp_path)
    lake = deltaduck.connect(target, storage=url, storage_options=s3.options(), mirror="manual")
    lake.create_table("t", {"writer": "BIGINT", "n": "BIGINT"}, configuration={"delta.checkpointInterval": "7"})
    lake.mirror.reconcile()
    return lake, [target, json.dumps(s3.options()), str(WRITERS), str(COMMITS)]


def ours() -> list[tuple[int, int]]:
    return [(w, n) for w in range(WRITERS) for n in range(COMMITS)]


def theirs(lake: Lake, s3: stores.S3, n: int) -> int:
    """A commit of somebody else; its version."""
    table = deltalake.DeltaTable(lake.table("t").detail()["location"], storage_options=s3.options())
    deltalake.write_deltalake(table, pa.table({"writer": [-1], "n": [n]}), mode="append")
    return table.version()


def content(lake: Lake, s3: stores.S3, version: int) -> bytes:
    key = f"{lake.table('t').detail()['location']}/_delta_log/{version:020d}.json".removeprefix(f"s3://{s3.bucket}/")
    return bytes(obstore.get(s3.store(), key).bytes())


def rows(table: Any) -> list[tuple[int, int]]:
    return sorted((row["writer"], row["n"]) for row in table.to_pylist())


def agree(lake: Lake, s3: stores.S3, wanted: list[tuple[int, int]]) -> None:
    assert rows(lake.sql("FROM t").to_arrow_table()) == sorted(wanted)
    assert lake.mirror.verify("t", range(10_000)), str(lake.mirror.verify("t", range(10_000)))
    other = deltalake.DeltaTable(lake.table("t").detail()["location"], storage_options=s3.options())
    assert rows(other.to_pyarrow_table()) == sorted(wanted)


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_eight_processes_publish_one_log(race: tuple[Lake, list[str]], s3: stores.S3, mode: str) -> None:
    lake, told = race
    with lake:
        subprocess.run([sys.executable, "-c", CROWD, *told, mode], check=True, timeout=240)
        assert lake.mirror.status("t")[0]["pending"] == 0  # nobody needs to be asked
        assert lake.table("t").version() == WRITERS * COMMITS
        agree(lake, s3, ours())


def test_somebody_else_is_never_overwritten_always_reported_and_adopted(race: tuple[Lake, list[str]], s3: stores.S3) -> None:
    lake, told = race
    written, adopted = {}, 0
    with lake, subprocess.Popen([sys.executable, "-c", CROWD, *told, "sync"]) as crowd:
        for n in range(FOREIGN):
            version = theirs(lake, s3, n)
            written[version] = content(lake, s3, version)
            while not adopted > n:
                try:
                    done = lake.mirror.adopt("t")
                except CommitConflictError:  # ours went on meanwhile
                    continue
                adopted += 0 if done is None else done.versions[1] - done.versions[0] + 1
        assert crowd.wait(240) == 0
        assert {version: content(lake, s3, version) for version in written} == written
        version = theirs(lake, s3, FOREIGN)
        lake.write("t", [{"writer": 100, "n": 0}])
        with pytest.raises(MirrorError, match=rf"version {version} .*of somebody else.*lake\.mirror\.adopt"):
            lake.mirror.reconcile()
        assert lake.mirror.status("t")[0]["diverged"] == 1
        lake.mirror.adopt("t")
        agree(lake, s3, [*ours(), (100, 0), *((-1, n) for n in range(FOREIGN + 1))])
        assert [h["operation"] for h in lake.table("t").history()].count("ADOPT") <= FOREIGN + 1
