"""The command line: what it prints, what it refuses, what it leaves alone."""

from __future__ import annotations

import csv
import io
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from typer.main import get_command
from typer.testing import CliRunner, Result

import deltaduck
from deltaduck import statements
from deltaduck.frontends import cli, terminal

ROOT = Path(__file__).resolve().parents[2]
Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test stands in an empty directory, without a lake named by the environment."""
    monkeypatch.delenv("DELTADUCK_LAKE", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def shop(somewhere: Path) -> Path:
    """A lake with orders over three days (three versions) and an empty table, closed."""
    path = somewhere / "lake.duckdb"
    with deltaduck.connect(path) as lake:
        for day in (1, 2, 3):
            rows = [{"day": day, "id": day * 10 + i, "note": f"n{i}"} for i in range(2)]
            lake.write("orders", rows, partition_by="day", commit_metadata=f"load {day}")
        lake.create_table("empty", {"x": "BIGINT"})
    return path


@pytest.fixture
def run() -> Run:
    def invoke(*arguments: object, code: int = 0, **options: object) -> Result:
        result = CliRunner().invoke(cli.app, [str(a) for a in arguments], **options)  # type: ignore[arg-type]
        assert result.exit_code == code, (result.output, result.exception)
        return result

    return invoke


def process(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """The real command in a process of its own."""
    command = [sys.executable, "-W", "error", "-m", "deltaduck.frontends.cli", *map(str, arguments)]
    variables = {**os.environ, "PYTHONIOENCODING": "utf-8", **environment}
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", env=variables, check=False)


# --- reading


def test_tables_names_every_table_with_its_totals(shop: Path, run: Run) -> None:
    found = json.loads(run("tables", "--format", "json").stdout)
    assert [(t["table"], t["version"], t["rows"], t["files"]) for t in found] == [("empty", 0, 0, 0), ("orders", 2, 6, 3)]
    shown = run("tables").stdout
    assert "orders" in shown
    assert "INSERT" not in shown


def test_the_lake_is_named_by_option_or_environment(shop: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    moved = shop.rename(shop.with_name("other.duckdb"))
    assert "orders" in run("tables", "-l", moved).stdout
    monkeypatch.setenv("DELTADUCK_LAKE", str(moved))
    assert "orders" in run("tables").stdout


def test_sql_prints_a_table(shop: Path, run: Run) -> None:
    lines = run("sql", "SELECT day, count(*) AS n, NULL AS nothing FROM orders GROUP BY day ORDER BY day").stdout.splitlines()
    assert lines[0].split() == ["day", "n", "nothing"]
    assert [line.split() for line in lines[2:]] == [["1", "2", "NULL"], ["2", "2", "NULL"], ["3", "2", "NULL"]]


def test_sql_reads_the_past(shop: Path, run: Run) -> None:
    assert json.loads(run("sql", "-f", "json", "SELECT count(*) AS n FROM orders AT (VERSION => 0)").stdout) == [{"n": 2}]


def test_sql_limits_rows_and_says_so(shop: Path, run: Run) -> None:
    shown = run("sql", "SELECT * FROM range(100)", "--limit", 3).stdout
    assert "the first 3 rows" in shown
    assert len(shown.splitlines()) == 2 + 3 + 1
    assert "the first 40 rows" in run("sql", "SELECT * FROM range(100)").stdout
    assert "first" not in run("sql", "SELECT * FROM range(3)", "--limit", 3).stdout
    assert len(json.loads(run("sql", "SELECT * FROM range(100)", "-f", "json", "-n", 5).stdout)) == 5


def test_programs_get_every_row(shop: Path, run: Run) -> None:
    assert len(json.loads(run("sql", "SELECT * FROM range(5000)", "-f", "json").stdout)) == 5000
    assert len(run("sql", "SELECT * FROM range(5000)", "-f", "csv").stdout.splitlines()) == 5001


def test_json_keeps_what_json_can_say(shop: Path, run: Run) -> None:
    query = """SELECT 1::HUGEINT AS h, 1.5::DECIMAL(5, 2) AS d, 'nan'::DOUBLE AS n, DATE '2024-02-29' AS day, 'a"b' AS s,
                      TIMESTAMPTZ '2024-02-29 12:00:00+00' AS t, {'a': [1, NULL]} AS nested, '\\xFF'::BLOB AS b, NULL AS x"""
    (row,) = json.loads(run("sql", "-f", "json", query).stdout)
    assert row == {
        "h": 1, "d": 1.5, "n": "nan", "day": "2024-02-29", "s": 'a"b', "t": "2024-02-29T12:00:00+00:00",
        "nested": {"a": [1, None]}, "b": "ff", "x": None,
    }  # fmt: skip
    assert json.loads(run("sql", "-f", "json", "SELECT 1 WHERE false").stdout) == []


def test_csv_is_read_back_as_it_was(shop: Path, run: Run) -> None:
    text = run("sql", "-f", "csv", """SELECT 'a,"b' AS "x y", NULL AS z, 'line' || chr(10) || 'break' AS l""").stdout
    assert list(csv.reader(io.StringIO(text))) == [["x y", "z", "l"], ['a,"b', "", "line\nbreak"]]


def test_columns_of_one_name_are_all_shown(shop: Path, run: Run) -> None:
    assert run("sql", "-f", "csv", "SELECT 1 AS a, 2 AS a").stdout == "a,a\n1,2\n"


def test_sql_comes_from_standard_input_too(shop: Path, run: Run) -> None:
    assert run("sql", "-", "-f", "csv", input="SELECT 7 AS seven").stdout == "seven\n7\n"


def test_sql_writes(shop: Path, run: Run) -> None:
    assert "4" in run("sql", "DELETE FROM orders WHERE day < 3").stdout
    assert json.loads(run("sql", "-f", "json", "SELECT count(*) AS n FROM orders").stdout) == [{"n": 2}]


def test_history_is_newest_first_and_limited(shop: Path, run: Run) -> None:
    found = json.loads(run("history", "orders", "-n", 2, "-f", "json").stdout)
    assert [(row["version"], row["user_metadata"]) for row in found] == [(2, "load 3"), (1, "load 2")]
    assert "load 1" in run("history", "orders").stdout


def test_files_says_how_many_a_filter_spares(shop: Path, run: Run) -> None:
    shown = run("files", "orders", "--filter", "day = 2").stdout
    assert "1 of 3 files can hold a matching row; 2 are skipped" in shown
    assert "day=2/" in shown
    assert "day=1/" not in shown
    result = run("files", "orders", "--filter", "id >= 30", "-f", "json")
    assert [f["partition_values"] for f in json.loads(result.stdout)] == ['{"day":"3"}']
    assert "1 of 3 files" in result.stderr
    assert len(json.loads(run("files", "orders", "--version", 0, "-f", "json").stdout)) == 1


def test_many_rows_are_lined_up_quickly(shop: Path, run: Run) -> None:
    lines = run(
        "sql", "SELECT i, CASE WHEN i > 0 THEN 'x' || chr(10) END AS s FROM range(3000) r(i)", "-n", 3000
    ).stdout.splitlines()
    assert len(lines) == 1 + 3000
    assert lines[1].split() == ["0", "NULL"]
    assert lines[2].split() == ["1", "x\\n"]


def test_a_lake_in_sqlite_is_read_alike(somewhere: Path, run: Run) -> None:
    run("sql", "--create", "-l", "lake.sqlite", "CREATE TABLE t AS SELECT 1 AS x")
    assert json.loads(run("tables", "-l", "deltasql://sqlite/lake.sqlite", "-f", "json").stdout)[0]["rows"] == 1
    assert "1 commits compared, equal" in run("mirror", "verify", "-l", "lake.sqlite").stdout
    assert "no lake at other.sqlite" in run("tables", "-l", "other.sqlite", code=1).stderr


# --- the mirror


def test_mirror_status_and_verify_of_a_good_lake(shop: Path, run: Run) -> None:
    found = {row["table"]: row for row in json.loads(run("mirror", "status", "-f", "json").stdout)}
    assert (found["orders"]["version"], found["orders"]["published_version"]) == (2, 2)
    assert "3 commits compared, equal to the catalog" in run("mirror", "verify", "orders").stdout
    assert run("mirror", "verify").stdout.count("equal to the catalog") == 2


def test_mirror_verify_fails_on_a_difference(shop: Path, run: Run) -> None:
    commit = shop.with_suffix(".delta") / "orders" / "_delta_log" / f"{1:020d}.json"
    commit.write_text(commit.read_text().replace("load 2", "load x"))
    assert "differs from the catalog" in run("mirror", "verify", code=1).stdout
    commit.unlink()
    assert "is missing" in run("mirror", "verify", "orders", code=1).stdout
    assert "repaired; 3 commits compared, equal" in run("mirror", "verify", "orders", "--repair").stdout


def test_mirror_reconcile_publishes_what_is_owed(shop: Path, run: Run) -> None:
    (shop.with_suffix(".delta") / "orders" / "_delta_log" / f"{2:020d}.json").unlink()
    with duckdb.connect(str(shop)) as con:  # as after a crash between commit and publication
        con.execute("UPDATE dl_mirror_status SET status = 'PENDING' WHERE version = 2")
    assert "1 versions published" in run("mirror", "reconcile").stdout
    assert "0 versions published" in run("mirror", "reconcile", "orders").stdout
    run("mirror", "verify")


# --- errors


@pytest.mark.parametrize("command", [["tables"], ["sql", "SELECT 1"], ["history", "t"], ["files", "t"], ["mirror", "verify"]])
def test_a_missing_lake_is_an_error_and_is_not_made(somewhere: Path, run: Run, command: list[str]) -> None:
    message = run(*command, code=1).stderr
    assert "no lake at lake.duckdb" in message
    assert "--lake" in message
    assert list(somewhere.iterdir()) == []


def test_sql_makes_a_lake_when_asked(somewhere: Path, run: Run) -> None:
    run("sql", "--create", "CREATE TABLE t AS SELECT 1 AS x")
    assert "t" in run("tables", "-f", "csv").stdout


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["history", "order"], "did you mean 'orders'?"),
        (["files", "orders", "--filter", "day ="], "cannot be parsed"),
        (["files", "orders", "--version", "9"], "has versions 0 to 2"),
        (["sql", "SELEC 1"], "syntax error"),
        (["sql", "SELECT CAST(note AS INTEGER) FROM orders"], "n0"),
        (["mirror", "verify", "nope"], "no table 'nope'"),
        (["tables", "-l", "text.duckdb"], "not a DuckDB database"),
    ],
)
def test_an_error_is_one_line_on_stderr(shop: Path, run: Run, command: list[str], message: str) -> None:
    Path("text.duckdb").write_text("nothing of the kind " * 1000)
    result = run(*command, code=1)
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""


def test_a_process_prints_no_traceback(shop: Path) -> None:
    done = process("history", "nope")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("no table 'nope'")
    assert "Traceback" not in done.stderr
    done = process("tables", "-f", "csv", DELTADUCK_LAKE=str(shop))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[2].startswith("orders,2,6,3,")


def test_a_lake_in_use_names_the_way_out(shop: Path) -> None:
    with deltaduck.connect(shop):
        done = process("tables")
    assert done.returncode == 1
    assert "in use by another process" in done.stderr
    assert "PostgreSQL" in done.stderr


def test_without_typer_the_extra_is_named(somewhere: Path) -> None:
    program = "import sys; sys.modules['typer'] = None; from deltaduck.frontends.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.strip() == "the command line needs typer and rich: pip install 'deltaduck[cli]'"


def test_what_would_steer_the_terminal_is_written_out(shop: Path, run: Run) -> None:
    assert "\x1b" not in run("sql", "SELECT chr(27) || '[2Jgone' AS x, '[red]kept[/red]' AS y").stdout
    assert "[red]kept[/red]" in run("sql", "SELECT '[red]kept[/red]' AS y").stdout
    assert terminal.one_line('a "\x1b[31m"\n\nLINE 1: b\n   ^^^') == 'a "\\x1b[31m" LINE 1: b'


# --- the schema, and the documents


@pytest.fixture
def printed_schema(run: Run) -> Iterator[Callable[[str], str]]:
    return lambda database: run("schema", "--database", database).stdout


def test_the_printed_schema_is_what_a_lake_holds(shop: Path, printed_schema: Callable[[str], str]) -> None:
    with duckdb.connect() as mine, duckdb.connect(str(shop)) as theirs:
        mine.execute(printed_schema("duckdb"))
        for query in (
            "SELECT table_name, column_name, data_type, is_nullable FROM duckdb_columns() WHERE table_name LIKE 'dl\\_%' "
            "ESCAPE '\\' AND table_name NOT SIMILAR TO 'dl_skip_[0-9]+' ORDER BY ALL",
            "SELECT view_name FROM duckdb_views() WHERE NOT internal AND view_name LIKE 'dl_%' ORDER BY ALL",
        ):
            assert mine.execute(query).fetchall() == theirs.execute(query).fetchall()


def test_a_schema_that_an_administrator_made_becomes_a_lake(
    somewhere: Path, run: Run, printed_schema: Callable[[str], str]
) -> None:
    with duckdb.connect("lake.duckdb") as con:
        con.execute(printed_schema("duckdb"))
    run("sql", "CREATE TABLE t AS SELECT 1 AS n")
    assert run("sql", "--format", "csv", "FROM t").stdout == "n\n1\n"


def test_a_damaged_catalog_is_told_apart_from_a_new_one(shop: Path, run: Run) -> None:
    with duckdb.connect(str(shop)) as con:
        con.execute("DELETE FROM dl_lake")
    assert "no row in dl_lake: it is damaged" in run("tables", "--lake", str(shop), code=1).stderr


def test_the_printed_schema_runs_in_sqlite(printed_schema: Callable[[str], str]) -> None:
    con = sqlite3.connect(":memory:")
    try:
        con.executescript(printed_schema("sqlite"))
        for view in statements.views("sqlite"):
            assert con.execute(f"SELECT * FROM {view}").fetchall() == []
    finally:
        con.close()


def test_migrate_says_what_it_copied(shop: Path, somewhere: Path, run: Run) -> None:
    copied = run("migrate", shop, somewhere / "lake.sqlite", "--format", "json")
    rows = {row["table"]: row["rows"] for row in json.loads(copied.stdout)}
    assert rows["dl_add_files"] == rows["dl_skip_1"] == 3
    assert "write to one of the two only" in copied.stderr
    assert len(run("history", "orders", "--lake", "lake.sqlite", "--format", "csv").stdout.splitlines()) == 4
    assert "holds a lake already" in run("migrate", shop, "lake.sqlite", code=1).stderr


def commands() -> list[str]:
    """Every command, as it is typed."""

    def walk(command: object, path: str) -> Iterator[str]:
        if not (below := getattr(command, "commands", None)):
            yield path
        else:
            for name, child in below.items():
                yield from walk(child, f"{path} {name}")

    return list(walk(get_command(cli.app), "deltaduck"))


def test_every_command_is_found() -> None:
    assert {"deltaduck demo", "deltaduck sql", "deltaduck mirror verify"} <= set(commands())


@pytest.mark.parametrize("command", commands())
def test_every_command_is_documented(command: str) -> None:
    documents = [ROOT / "README.md", ROOT / "docs" / "cli.md"]
    assert any(command in d.read_text(encoding="utf-8") for d in documents if d.exists())


@pytest.mark.parametrize("command", commands())
def test_every_command_explains_itself(run: Run, command: str) -> None:
    assert "Usage:" in run(*command.split()[1:], "--help").stdout


def test_optimize_vacuum_restore(somewhere: Path, run: Run) -> None:
    with deltaduck.connect(somewhere / "lake.duckdb") as lake:
        for n in range(3):
            lake.write("t", pa.table({"n": [n]}))
    assert run("optimize", "t").stdout == "3 files became 1, of 3\n"
    assert run("optimize", "t", "--zorder", "n", "--target-size", "1mb").stdout == "1 files became 1, of 1\n"
    assert run("vacuum", "t").stdout == ""
    assert run("vacuum", "t", "--retain", "0", code=1).stdout == ""
    listed = run("vacuum", "t", "--retain", "0", "--force")
    assert len(listed.stdout.splitlines()) == 4
    assert run("restore", "t", "--version", "1").stdout == "2 files restored, 1 removed\n"
    assert len(run("vacuum", "t", "--retain", "0", "--force", "--delete", "--full").stdout.splitlines()) == 3
    assert run("sql", "--format", "csv", "SELECT n FROM t ORDER BY n").stdout == "n\n0\n1\n"
    run("restore", "t", code=2)
    assert run("mirror", "clean").stdout == "0 files deleted\n"
