"""docs/schema.md is the SQL contract: its queries run, and it names all that a catalog holds."""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

import deltaduck
from deltaduck import Lake
from deltaduck.operations import fsck

DOCS = Path(__file__).resolve().parents[1] / "docs"
SCHEMA = (DOCS / "schema.md").read_text(encoding="utf-8")
BLOCKS = [block.strip().rstrip(";") for block in re.findall(r"^```sql\n(.*?)^```$", SCHEMA, re.MULTILINE | re.DOTALL)]
TABLES = dict(re.findall(r"^### `([\w<>]+)`\n(.*?)(?=^##|\Z)", SCHEMA, re.MULTILINE | re.DOTALL))  # and views
FUNCTION = re.compile(r"\bdl_(scan|files|history|detail|changes|tables)\(")
VALUES: dict[str, Any] = {
    "table_id": 1, "version": 2, "name_key": "orders", "at_ms": 2**42, "metadata_version": 0, "protocol_version": 0,
    "day": "tue", "amount": 8.0, "app_id": "loader",
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a lake: `orders` at version 2, its third commit together with a new table `totals`."""
    root = tmp_path_factory.mktemp("docs")
    with deltaduck.connect(root / "lake.duckdb") as lake:
        rows = [("mon", 1, 9.5), ("mon", 2, 20.0), ("tue", 3, 7.0)]
        orders = [{"day": day, "id": n, "amount": amount} for day, n, amount in rows]
        lake.write("orders", orders, partition_by="day", app_transaction=("loader", 7))
        lake.sql("UPDATE orders SET amount = 10 WHERE id = 1")
        with lake.begin() as tx:
            tx.write("orders", [{"day": "wed", "id": 4, "amount": 1.5}], commit_metadata="the last one")
            tx.sql("CREATE TABLE totals AS SELECT day, sum(amount) AS total FROM orders GROUP BY day")
    return root


def test_the_statements_of_sql_md_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (DOCS / "sql.md").read_text(encoding="utf-8")
    with deltaduck.connect(":memory:", storage=tmp_path / "data") as lake:
        for block in re.findall(r"^```sql\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            lake.sql(block)
        assert lake.sql("SELECT id, name, n, size FROM stock ORDER BY id").fetchall() == [
            (1, "old nail", 10, None), (2, "screw", 30, None), (5, "old clip", 50, None), (7, "nut", 69, "M8"),
        ]  # fmt: skip
        assert lake.sql("SELECT n FROM delivery WHERE id = 7 ORDER BY n").fetchall() == [(1,), (70,)]


@pytest.fixture(scope="module")
def lake(place: Path) -> Iterator[Lake]:
    with deltaduck.connect(place / "lake.duckdb") as opened:
        yield opened


@pytest.fixture(scope="module")
def plain(place: Path, lake: Lake) -> Iterator[duckdb.DuckDBPyConnection]:
    """The catalog in a client that knows nothing of deltaduck: a copy, as one process has the file open once."""
    lake.con.execute("CHECKPOINT")
    copy = place / "copy.duckdb"
    copy.write_bytes((place / "lake.duckdb").read_bytes())
    with duckdb.connect(copy, read_only=True) as con:
        yield con


@pytest.fixture(scope="module")
def registered(lake: Lake) -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as con:
        deltaduck.register(con, lake)
        yield con


@pytest.fixture
def answers(lake: Lake, plain: Any, registered: Any) -> Any:
    """Rows of a query of the page, asked where the page says that it is to be asked."""

    def ask(query: str) -> list[tuple[Any, ...]]:
        if FUNCTION.search(query):
            return [tuple(row.values()) for row in registered.sql(query).to_arrow_table().to_pylist()]
        if " AT (" in query:
            return lake.sql(query).fetchall()
        wanted = {name: VALUES[name] for name in re.findall(r"\$([a-z]\w*)", query)}
        return plain.execute(query, wanted or None).fetchall()

    return ask


def block(start: str) -> str:
    """The one query of the page that holds this text."""
    (found,) = [b for b in BLOCKS if start in b]
    return found


@pytest.mark.parametrize("query", BLOCKS, ids=lambda q: re.sub(r"\W+", "-", q)[:60])
def test_every_query_runs(answers: Any, query: str) -> None:
    rows = answers(query)
    nothing = "'PENDING'" in query  # all is published
    assert bool(rows) is not nothing


@pytest.mark.parametrize("query", [b for b in BLOCKS if "$" in b and not FUNCTION.search(b)])
def test_every_query_runs_in_the_lake(answers: Any, lake: Lake, query: str) -> None:
    wanted = {name: VALUES[name] for name in re.findall(r"\$([a-z]\w*)", query)}
    assert sorted(map(repr, lake.sql(query, wanted).fetchall())) == sorted(map(repr, answers(query)))


def test_there_are_queries() -> None:
    assert len(BLOCKS) >= 25


ANSWERS: list[tuple[str, list[tuple[Any, ...]]]] = [
    ("FROM orders\nGROUP BY day", [("mon", 30.0), ("tue", 7.0), ("wed", 1.5)]),
    ("count(*)\nFROM orders_at(0)", [(3,)]),
    ("EXCEPT ALL", [("mon", 1, 10.0), ("wed", 4, 1.5)]),
    ("SELECT table_name, sum(bytes_removed)", []),
    ("commit_id = (SELECT", [("orders", 2, "WRITE"), ("totals", 0, "CREATE TABLE AS SELECT")]),
    ("FROM dl_txn_actions", [(7,)]),
    ("WHERE old.amount <> new.amount", [(1, 9.5, 10.0)]),
    ("FROM orders AT (VERSION => 0) WHERE", [(1, 9.5), (2, 20.0)]),
    ("filter := 'amount > 8'", [(1,), (2,)]),
    ("FROM dl_tables()", [("orders", 2), ("totals", 0)]),
    ("FROM dl_detail('orders')", [("orders", 2, ["day"], 3, 4)]),
]


@pytest.mark.parametrize(("text", "expected"), ANSWERS, ids=[text.replace("\n", " ") for text, _ in ANSWERS])
def test_what_queries_answer(answers: Any, text: str, expected: list[tuple[Any, ...]]) -> None:
    rows = answers(block(text))
    if expected:
        assert rows == expected
    else:
        assert [name for name, _ in rows] == ["orders", "totals"]
        assert rows[0][1] > 0 == rows[1][1]


def test_the_skip_index_prunes_to_one_file(answers: Any, lake: Lake) -> None:
    ((path, rows),) = answers(block("dl_skip_1 s"))
    assert path.startswith("day=tue/")
    assert rows == 1
    assert lake.table("orders").files("day = 'tue' AND amount < 8")["path"].to_pylist() == [path]


def test_the_same_query_finds_a_file_that_has_a_deletion_vector(tmp_path: Path) -> None:
    rows = [{"day": day, "id": n, "amount": amount} for n, (day, amount) in enumerate([("mon", 1.0), ("tue", 7.0), ("tue", 9.0)])]
    with deltaduck.connect(tmp_path / "lake.duckdb") as lake:
        lake.write("orders", rows, partition_by="day", configuration={"delta.enableDeletionVectors": "true"})
        lake.sql("DELETE FROM orders WHERE id = 2")
        values = {"table_id": 1, "version": 1, "day": "tue", "amount": 8}
        ((path, count),) = lake.sql(block("dl_skip_1 s"), values).fetchall()
        assert (path.startswith("day=tue/"), count) == (True, 2)
        assert lake.table("orders").files()["dv_cardinality"].to_pylist() == [None, 1]


def test_the_index_of_orders_is_as_the_page_says(answers: Any) -> None:
    found = answers(block("FROM dl_skip_columns"))
    said = ", ".join(f"`{n} {path} {kind} {str(part).lower()}`" for n, path, kind, part in found)
    assert f"`orders` answers {said}." in " ".join(SCHEMA.split())


def test_a_json_commit_is_rebuilt_from_sql_byte_for_byte(answers: Any, place: Path) -> None:
    lines = "".join(line + "\n" for (line,) in answers(block("FROM dl_log_lines")))
    published = place / "lake.delta" / "orders" / "_delta_log" / f"{VALUES['version']:020d}.json"
    assert published.read_bytes() == lines.encode()


def test_the_named_statements_are_the_shipped_ones(lake: Lake) -> None:
    """A heading that ends in a statement's name is followed by that statement."""
    named = re.findall(r"^### [^\n]*\(`(\w+)`\)\n.*?^```sql\n(.*?)^```$", SCHEMA, re.MULTILINE | re.DOTALL)
    assert len(named) >= 8
    for name, query in named:
        shipped = re.sub(r"^--.*\n", "", lake.catalog.sql(name), flags=re.MULTILINE)
        assert query.strip().rstrip(";").split() == re.sub(r"(?<!:):([a-z]\w*)", r"$\1", shipped).split(), name


def test_every_table_view_and_column_is_described(tmp_path: Path) -> None:
    with deltaduck.connect(tmp_path / "fresh.duckdb") as fresh:
        held = fresh.con.execute("SELECT table_name, column_name FROM duckdb_columns() WHERE NOT internal").fetchall()
    assert len({table for table, _ in held}) == 23
    missing = [(table, column) for table, column in held if f"`{column}`" not in TABLES.get(table, "")]
    assert missing == []


def test_nothing_is_described_that_is_not_there(plain: Any) -> None:
    held: dict[str, set[str]] = {}
    for table, column in plain.execute("SELECT table_name, column_name FROM duckdb_columns() WHERE NOT internal").fetchall():
        held.setdefault(table, set()).add(column)
    described = {name: text for name, text in TABLES.items() if name.startswith("dl_") and "<" not in name}
    for name, text in described.items():
        cells = re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
        assert {c for cell in cells for c in re.findall(r"`(\w+)`", cell)} <= held[name], name


def test_the_python_of_the_runbook_runs(tmp_path: Path) -> None:
    """A checkpoint, and the skip index made anew."""
    blocks = re.findall(r"^```python\n(.*?)^```$", (DOCS / "operations.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    with deltaduck.connect(tmp_path / "lake.duckdb") as lake:
        for low in (0, 100):
            lake.write("orders", [{"day": f"ü {low}", "id": low + n, "amount": n / 2} for n in range(10)], partition_by="day")
        before = lake.catalog.fetch("SELECT * FROM dl_skip_1 ORDER BY ALL")
        for code in blocks:
            exec(code, {"lake": lake})
        assert lake.catalog.fetch("SELECT * FROM dl_skip_1 ORDER BY ALL") == before
        assert lake.table("orders").files("id > 100").num_rows == 1


def test_a_diverged_table_is_mended_as_the_runbook_says(tmp_path: Path) -> None:
    (statement,) = re.findall(r'duckdb lake\.duckdb "(UPDATE .*)"', (DOCS / "operations.md").read_text(encoding="utf-8"))
    foreign = tmp_path / "lake.delta" / "orders" / "_delta_log" / f"{1:020d}.json"
    with deltaduck.connect(tmp_path / "lake.duckdb") as lake:
        lake.write("orders", [{"id": 1}])
        foreign.write_text('{"commitInfo":{}}\n', encoding="utf-8")
        lake.write("orders", [{"id": 2}])
        lake.write("orders", [{"id": 3}])
        assert [(row["pending"], row["diverged"]) for row in lake.mirror.status()] == [(1, 1)]
    foreign.rename(tmp_path / "foreign.json")
    with duckdb.connect(tmp_path / "lake.duckdb") as con:
        con.execute(statement)
    with deltaduck.connect(tmp_path / "lake.duckdb") as lake:
        assert lake.mirror.reconcile() == 2
        assert lake.mirror.verify("orders")


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda p: p.name)
def test_links_of_the_pages_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)[^):]*\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_functions_that_architecture_names_exist() -> None:
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    here = {"Lake": "lake.Lake", "Mirror": "mirror.Mirror", "references": "frontends.references"}
    named = [name for name in set(re.findall(r"`((?:\w+\.)+\w+)`", text)) if not name.endswith((".py", ".sql", ".md"))]
    checked = 0
    for name in named:
        first, *rest = name.split(".")
        if first in ("delta", "tx", "commitInfo"):
            continue
        assert pkgutil.resolve_name(".".join(["deltaduck", here.get(first, first), *rest])), name
        checked += 1
    assert checked >= 12


def test_the_runbook_knows_every_check_of_fsck() -> None:
    chapter = (DOCS / "operations.md").read_text(encoding="utf-8").split("## Is it whole?")[1].split("\n## ")[0]
    cells = re.findall(r"^\| (`.*?) \|", chapter, re.MULTILINE)
    assert {check for cell in cells for check in re.findall(r"`(\w+)`", cell)} == {*fsck.INVARIANTS, *fsck.OTHERS}
