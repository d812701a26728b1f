"""Names, texts and places that try to be something else: SQL, paths, markup, terminal codes. Each is only a name."""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import deltaduck
from deltaduck import DeltaduckError, Lake
from deltaduck.frontends import cli, terminal
from deltaduck.operations.create import LONGEST_NAME, place_name
from deltaduck.protocol.schema import literal, quote

NAMES = [
    'a"; DROP TABLE dl_tables; --',
    "a'); DROP TABLE dl_tables; --",
    "a'' OR 1=1 /*",
    "$$; SELECT 1; $$",
    "{condition} {kept} %s %(x)s :table_id ? $1",
    "../../etc/passwd",
    "/etc/passwd",
    "a\\b",
    ".",
    "..",
    "_delta_log",
    "\x1b[31mred\x1b]0;title\x07",
    "line\none",
    "tab\tand\rreturn",
    "<script>alert(1)</script>",
    "[bold red]markup[/]",
    "ü\u202ekcab\u200b",
    "part=1/x%2F..%2F",
    "*?[a-z]#",
    "x" * 300,
    "🦆" * 40,
]

EACH = settings(
    max_examples=40, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip


def tree(root: Path) -> set[str]:
    return {str(p.relative_to(root)) for p in root.rglob("*")}


def test_tables_of_any_name_live_side_by_side_below_the_storage(lake: Lake, tmp_path: Path) -> None:
    outside = tree(tmp_path.parent) - {str(p.relative_to(tmp_path.parent)) for p in [tmp_path, *tmp_path.rglob("*")]}
    with lake.begin() as tx:
        for i, name in enumerate(NAMES):
            tx.write(name, [{"n": i}])
    with lake.begin() as tx:
        for name in NAMES:
            tx.sql(f"UPDATE {quote(name)} SET n = n + 100 WHERE n < 100")
    for i, name in enumerate(NAMES):
        assert lake.sql(f"SELECT n FROM {quote(name)} WHERE n >= 0").fetchall() == [(i + 100,)], name
        assert lake.table(name).as_of(version=0).to_arrow()["n"].to_pylist() == [i]
        location = Path(lake.table(name).detail()["location"]).resolve()
        assert location.parent == Path(lake.storage).resolve(), name
        assert location.name.isprintable()
    assert {t["name"] for t in lake.tables()} == {*NAMES}
    assert lake.fsck(NAMES[0], NAMES[4], NAMES[8]) == []
    lake.sql(f"ALTER TABLE {quote(NAMES[0])} RENAME TO {quote(NAMES[0] + NAMES[1])}")
    with lake.begin() as tx:
        for name in NAMES[1:]:
            tx.sql(f"DROP TABLE {quote(name)}")
    assert [t["name"] for t in lake.tables()] == [NAMES[0] + NAMES[1]]
    assert lake.catalog.fetch("SELECT count(*) FROM dl_tables") == [(len(NAMES),)]
    assert tree(tmp_path.parent) - {str(p.relative_to(tmp_path.parent)) for p in [tmp_path, *tmp_path.rglob("*")]} == outside


def test_columns_of_any_name(lake: Lake) -> None:
    rows = pa.table({name: [i, i + 50] for i, name in enumerate(NAMES)} | {"day": ["a'; --", "../b"]})
    lake.write("t", rows, partition_by="day")
    for i, name in enumerate(NAMES):
        assert lake.sql(f"SELECT {quote(name)} FROM t WHERE {quote(name)} < {i + 1}").fetchall() == [(i,)]
        assert lake.table("t").files(f"{quote(name)} > {i + 1}").num_rows == 1
    set_all = ", ".join(f"{quote(name)} = {quote(name)} + 1" for name in NAMES)
    lake.sql(f"UPDATE t SET {set_all} WHERE day = 'a''; --'")
    assert lake.sql("SELECT count(*) FROM t WHERE day = '../b'").fetchall() == [(1,)]
    assert {p.parent.parent.name for p in Path(lake.storage, "t").rglob("*.parquet")} == {"t"}
    assert lake.fsck() == []


def test_texts_of_any_kind_are_kept_and_published(lake: Lake, log: Callable[..., list[dict[str, object]]]) -> None:
    for version, text in enumerate(NAMES):
        first = {} if version else {"configuration": {"owner": text}, "description": text}
        written = lake.write("t", [{"s": text}], commit_metadata=text, app_transaction=(text, 1), **first)
        assert written == version
        lines = log(lake, "t", version)
        assert lines[0]["commitInfo"]["userMetadata"] == text  # type: ignore[index]
        assert [a["txn"]["appId"] for a in lines if "txn" in a] == [text]  # type: ignore[index]
    for text in NAMES:
        assert lake.sql(f"SELECT count(*) FROM t WHERE s = {literal(text)}").fetchall() == [(1,)]
    lake.sql(f"COMMENT ON TABLE t IS {literal(NAMES[1])}")
    lake.sql(f"COMMENT ON COLUMN t.s IS {literal(NAMES[0])}")
    lake.sql(f"DELETE FROM t WHERE s = {literal(NAMES[0])}")
    assert lake.table("t").detail()["description"] == NAMES[1]
    assert [row["user_metadata"] for row in lake.table("t").history()][::-1][: len(NAMES)] == NAMES
    assert lake.fsck() == []


def test_a_log_that_holds_such_texts_is_imported_as_it_is(lake: Lake, tmp_path: Path) -> None:
    rows = pa.table({name: [name, None] for name in NAMES} | {"day": [NAMES[0], NAMES[5]]})
    with deltaduck.connect(":memory:", storage=tmp_path / "elsewhere") as source:
        source.write(
            "t", rows, partition_by="day", configuration={NAMES[0]: NAMES[1]}, commit_metadata=NAMES[6], description=NAMES[9]
        )
    evil = 'seen"; DROP TABLE dl_tables; --'
    lake.import_table(tmp_path / "elsewhere" / "t", evil)
    assert sorted(lake.table(evil).to_arrow().to_pylist(), key=str) == sorted(rows.to_pylist(), key=str)
    assert lake.table(evil).detail()["description"] == NAMES[9]
    assert lake.sql(f"SELECT count(*) FROM {quote(evil)} WHERE day = {literal(NAMES[5])}").fetchall() == [(1,)]
    assert lake.fsck() == []


@pytest.mark.parametrize("schema", ['s"; DROP SCHEMA public CASCADE; --', "s'; SELECT 1; --", "ü %s {x}", "S"])
def test_a_schema_of_any_name_in_postgres(schema: str, tmp_path: Path, place: Callable[[str, Path], str]) -> None:
    uri = place("postgres", tmp_path)
    own = uri.split("?")[0].rsplit("/", 1)[1]
    hostile = uri.replace(f"/{own}?", f"/{urllib.parse.quote(own + schema, safe='')}?")
    with deltaduck.connect(hostile, storage=tmp_path / "data") as lake:
        lake.write("t", [{"n": 1}])
        assert lake.catalog.fetch("SELECT CAST(current_schema() AS TEXT)") == [(own + schema,)]
    with deltaduck.connect(hostile) as lake:
        assert lake.sql("FROM t").fetchall() == [(1,)]


@pytest.mark.parametrize(
    "place",
    ["s3://key:secret@bucket/x", "s3://bucket/../other", "s3://bucket/a?versionId=1", "ftp://host/x", "s3://", "s3://b/*"],
)
def test_places_that_are_more_than_a_place_are_refused(lake: Lake, place: str) -> None:
    with pytest.raises(DeltaduckError) as refused:
        lake.create_table("t", {"n": "BIGINT"}, location=place)
    assert "secret@" not in str(refused.value)
    assert lake.tables() == []


ESCAPES = "\x1b[2Jname\x07\u202e"


def test_nothing_that_steers_a_terminal_is_printed(tmp_path: Path) -> None:
    target = str(tmp_path / "lake.sqlite")
    with deltaduck.connect(target) as lake:
        lake.write(ESCAPES, [{"x": ESCAPES, "day": ESCAPES}], partition_by="day", commit_metadata=ESCAPES)
        lake.catalog.execute("DROP TABLE dl_skip_1")
    run = CliRunner().invoke
    named, missing = quote(ESCAPES), quote("no" + ESCAPES)
    for command in (
        ["tables"], ["history", ESCAPES], ["files", ESCAPES], ["sql", f"FROM {named}"], ["mirror", "status"],
        ["mirror", "verify"], ["vacuum", ESCAPES, "--full"], ["history", "no" + ESCAPES], ["sql", f"FROM {missing}"],
        ["fsck"], ["fsck", "--repair"], ["sql", f"SELECT '{ESCAPES}' AS {named}"], ["import", f"/no/{ESCAPES}"],
    ):  # fmt: skip
        shown = run(cli.app, [*command, "--lake", target])
        assert shown.exception is None or isinstance(shown.exception, SystemExit), command
        assert not {"\x1b", "\x07", "\u202e"} & set(shown.output), command
        assert "name" in shown.output or command[0] in ("vacuum",), command


def test_a_notebook_shows_markup_as_text(lake: Lake) -> None:
    evil = "<script>alert(1)</script>"
    lake.write(evil, [{"n": 1}], commit_metadata=evil)
    for html in (lake._repr_html_(), lake.table(evil)._repr_html_(), lake.table(evil).history()._repr_html_()):
        assert "<script>" not in html


@EACH
@given(st.text(max_size=60))
def test_quoted_is_one_name_and_one_text(text: str) -> None:
    """To DuckDB, whatever stands in it; a NUL ends a text there, and is refused before."""
    import duckdb

    if "\0" in text or not text or any("\ud800" <= c <= "\udfff" for c in text):
        return
    assert duckdb.sql(f"SELECT {literal(text)} AS {quote(text)}").columns == [text]
    assert duckdb.sql(f"SELECT {literal(text)}").fetchall() == [(text,)]


@EACH
@given(st.text(max_size=200), st.text(max_size=200))
def test_a_place_is_one_plain_directory(a: str, b: str) -> None:
    place = place_name(a)
    assert set(place) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-")
    assert ".." not in place
    assert not place.startswith(".")
    assert len(place) <= 160
    if a:
        assert Path("/lake", place).resolve().parent == Path("/lake")
    if len(place) > LONGEST_NAME and a != b:
        assert place != place_name(b)


@EACH
@given(st.text(max_size=200))
def test_what_is_printed_is_printable(text: str) -> None:
    assert terminal.one_line(text).replace("\n", "").isprintable()
    assert terminal.printable(text).replace("\n", "").isprintable()


@settings(EACH, max_examples=15)
@given(name=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=40))
def test_any_name_is_a_table_or_is_refused(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    root = tmp_path_factory.mktemp("any")
    with deltaduck.connect(root / "lake.sqlite") as lake:
        try:
            lake.write(name, [{"n": 1}])
        except DeltaduckError:
            assert lake.tables() == []
            return
        assert lake.sql(f"FROM {quote(name)}").fetchall() == [(1,)]
        (location,) = Path(lake.storage).iterdir()
        commit = json.loads((location / "_delta_log" / f"{0:020d}.json").read_text(encoding="utf-8").split("\n")[2])
        assert commit["metaData"]["name"] in (name, None)
