"""What a connection string names, how one is made, and what is said of one that is wrong."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltaduck import UriError, uri
from deltaduck.uris import Target, parse, redact


@pytest.mark.parametrize(
    ("text", "database", "place", "table"),
    [
        ("lake.duckdb", "duckdb", "lake.duckdb", None),
        ("/data/lake.sqlite", "sqlite", "/data/lake.sqlite", None),
        (":memory:", "duckdb", ":memory:", None),
        ("deltasql://duckdb/lake.duckdb", "duckdb", "lake.duckdb", None),
        ("deltasql://duckdb//data/lake.duckdb?table=orders", "duckdb", "/data/lake.duckdb", "orders"),
        ("deltasql://duckdb/:memory:?table=t", "duckdb", ":memory:", "t"),
        ("deltasql://sqlite/a/b.db?table=t", "sqlite", "a/b.db", "t"),
        ("DeltaSQL://SQLite/a.db", "sqlite", "a.db", None),
        ("deltasql://sqlite//a%20b/%25.db?table=x%26y", "sqlite", "/a b/%.db", "x&y"),
        ("deltasql://duckdb/a+b#c.duckdb?table=1+1", "duckdb", "a+b#c.duckdb", "1+1"),
        ("deltasql://postgres/lakes", "postgres", "postgresql:///lakes", None),
        ("deltasql://postgres/lakes/public/orders", "postgres", "postgresql:///lakes", "orders"),
        ("deltasql://postgres/lakes?table=orders", "postgres", "postgresql:///lakes", "orders"),
        ("deltasql://postgres/ada:pw@db:5432/lakes/public/orders", "postgres", "postgresql://ada:pw@db:5432/lakes", "orders"),
        ("deltasql://postgres/ada@[::1]:5432/lakes", "postgres", "postgresql://ada@[::1]:5432/lakes", None),
        ("deltasql://postgres/@db/lakes", "postgres", "postgresql://db/lakes", None),
        ("deltasql://postgres/a%3Ab:p%40%2Fw@db/l%2Fk/public/o%2Fo", "postgres", "postgresql://a%3Ab:p%40%2Fw@db/l%2Fk", "o/o"),
        ("deltasql://postgres/lakes/public/a@b", "postgres", "postgresql:///lakes", "a@b"),
        ("postgresql://ada:pw@db/lakes?table=orders", "postgres", "postgresql://ada:pw@db/lakes", "orders"),
        ("postgres://db/lakes", "postgres", "postgresql://db/lakes", None),
    ],
)
def test_what_a_target_names(text: str, database: str, place: str, table: str | None) -> None:
    assert parse(text) == Target(database, place, table=table)


def test_schema_options_and_storage() -> None:
    target = parse("deltasql://postgres/db/sales/orders?sslmode=require&pool_size=4&connect_timeout=3&storage=%2Fdata%2Flake")
    assert (target.schema, target.table, target.storage) == ("sales", "orders", "/data/lake")
    assert target.options == {"sslmode": "require", "pool_size": "4", "connect_timeout": "3"}
    assert parse("postgresql://db/lakes?schema=sales&sslmode=require") == Target(
        "postgres", "postgresql://db/lakes", "sales", options={"sslmode": "require"}
    )


def test_variables_are_put_in_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"PW": "p@/w%41:?", "HOST": "db:5432", "TABLE": "a/b?c", "DIR": "/data"}.items():
        monkeypatch.setenv(name, value)
    target = parse("deltasql://postgres/ada:${PW}@${HOST}/lakes/public/${TABLE}")
    assert (target.place, target.table) == ("postgresql://ada:p%40%2Fw%2541%3A%3F@db:5432/lakes", "a/b?c")
    assert parse("postgresql://ada:${PW}@${HOST}/lakes").place == "postgresql://ada:p%40%2Fw%2541:%3F@db:5432/lakes"
    assert parse("deltasql://sqlite/${DIR}/x%24%7BPW%7D.db?table=${TABLE}") == Target("sqlite", "/data/x${PW}.db", table="a/b?c")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "an empty text names no catalog"),
        ("mysql://x/y", r"mysql:// names no catalog; known: deltasql://\{duckdb,postgres,sqlite\}"),
        ("deltasql://mysql/x", "'mysql' is no database; known: duckdb, postgres, sqlite"),
        ("deltasql://", "'' is no database; known: duckdb, postgres, sqlite"),
        ("deltasql://sqlite", "a path is missing behind sqlite/"),
        ("deltasql://sqlite/?table=t", "a path is missing behind sqlite/"),
        ("deltasql://postgres/", "a database is missing behind postgres/"),
        ("deltasql://postgres/u:pw@h/", "none of them empty"),
        ("deltasql://postgres/db//t", "none of them empty"),
        ("deltasql://postgres/db/s/t/more", r"expected \[user:password@host:port/\]database"),
        ("deltasql://postgres/db/s/t?table=u", "it names two tables"),
        ("deltasql://postgres/db/s?schema=u", "it names two schemas"),
        ("deltasql://duckdb/x?tables=t&sslmode=no", "unknown options sslmode, tables; duckdb takes mirror, storage, table"),
        ("deltasql://postgres/db?pool=4", "unknown options pool; postgres takes .*connect_timeout.*pool_size.*sslmode.*table"),
        ("postgresql://db/lakes?pool=4", "unknown options pool; postgres takes .*pool_size"),
        ("deltasql://postgres/db?pool_size=many", "pool_size is 'many': it is a whole number"),
        ("deltasql://duckdb/x?table", "option table has no value"),
        ("deltasql://duckdb/x?table=", "option table has no value"),
        ("deltasql://duckdb/x?table=a&table=b", "option table is given twice"),
        ("deltasql://duckdb/${NOT_SET}/x", "environment variable NOT_SET is not set"),
        ("postgresql://${NOT_SET}@h/db", "environment variable NOT_SET is not set"),
    ],
)
def test_what_is_wrong(text: str, said: str) -> None:
    with pytest.raises(UriError, match=said):
        parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "deltasql://postgres/ada:hush@db/lakes?nope=1",
        "deltasql://postgres/ada:hu/hush@db/lakes/s/t?nope=1",
        "deltasql://postgres/ada:hu?hush@db/lakes",
        "deltasql://postgres/ada:hu@hush@db/a/b/c/d",
        "deltasql://postgres/lakes?password=hush&nope=1",
        "deltasql://postgres/lakes?sslpassword=hush&nope=1",
        "postgresql://ada:hush@db/lakes?nope=1",
        "postgresql://ada:hu#hush@db/lakes?PASSWORD=hush&nope=1",
    ],
)
def test_no_error_tells_a_password(text: str) -> None:
    with pytest.raises(UriError) as caught:
        parse(text)
    assert "hush" not in str(caught.value)


def test_a_target_keeps_its_secrets() -> None:
    assert "hush" not in repr(parse("deltasql://postgres/ada:hush@db/lakes?password=hush"))
    assert redact("deltasql://duckdb//data/lake.duckdb?table=t") == "deltasql://duckdb//data/lake.duckdb?table=t"


def test_uris_are_made_of_parts() -> None:
    assert uri("duckdb", "/data/lake.duckdb", table="orders") == "deltasql://duckdb//data/lake.duckdb?table=orders"
    assert uri("sqlite", ":memory:") == "deltasql://sqlite/:memory:"
    made = uri(
        "postgres", host="db", port=5432, database="lakes", schema="sales", table="orders", user="ada", password="s3cr/t",
        sslmode="require", pool_size=4, connect_timeout=None,
    )  # fmt: skip
    assert made == "deltasql://postgres/ada:s3cr%2Ft@db:5432/lakes/sales?sslmode=require&pool_size=4&table=orders"
    assert uri("postgres", host="/run/pg", database="lakes", user="ada") == ("deltasql://postgres/lakes?host=/run/pg&user=ada")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("oracle", "x"), "'oracle' is no database; known: duckdb, postgres, sqlite"),
        (("duckdb",), "a duckdb URI needs the path"),
        (("postgres",), "needs the database's name"),
        (("postgres", "x"), "has no path"),
    ],
)
def test_what_is_missing_in_parts(arguments: tuple[str, ...], said: str) -> None:
    with pytest.raises(UriError, match=said):
        uri(*arguments)


def test_a_part_of_another_database() -> None:
    with pytest.raises(UriError, match="unknown options host, sslmode; sqlite takes mirror, storage, table"):
        uri("sqlite", "x.db", host="db", sslmode="require")


TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1)


@given(kind=st.sampled_from(["duckdb", "sqlite"]), path=TEXT, table=st.none() | TEXT, storage=st.none() | TEXT)
def test_a_made_uri_names_its_file_again(kind: str, path: str, table: str | None, storage: str | None) -> None:
    made = uri(kind, path, table=table, storage=storage)
    assert re.fullmatch(r"[!-~]+", made)
    assert parse(made) == Target(kind, path, table=table, storage=storage)


@given(database=TEXT, schema=TEXT, table=TEXT, user=TEXT, password=TEXT, application_name=TEXT)
def test_a_made_uri_names_its_server_again(
    database: str, schema: str, table: str, user: str, password: str, application_name: str
) -> None:
    made = uri(
        "postgres", database=database, schema=schema, table=table, user=user, password=password, host="db",
        application_name=application_name,
    )  # fmt: skip
    target = parse(made)
    assert (target.schema, target.table, target.options) == (schema, table, {"application_name": application_name})
    psycopg = pytest.importorskip("psycopg", reason="libpq says what its URL means; DuckDB 1.5's environment may lack it")
    meant = psycopg.conninfo.conninfo_to_dict(target.place)
    assert meant == {"user": user, "password": password, "host": "db", "dbname": database}
