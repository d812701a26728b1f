"""The package's shape: imports point one way, modules stay small, errors are not swallowed."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "deltaduck"
MODULES = {
    ".".join(("deltaduck", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}

# Rooms from the protocol outward. A module imports from its own room and those before it, never from those after.
ROOMS = [
    ["_version", "errors"],
    ["protocol", "listing", "uris", "telemetry"],
    ["storage", "statements"],
    ["catalog"],
    ["predicate", "rules"],
    ["snapshot", "casts", "frames", "file_values"],
    [
        "deletions",
        "scan",
        "change_feed",
        "skip_index",
        "small_files",
        "many_files",
        "parquet",
        "changes",
        "row_conflicts",
        "conflicts",
        "shapes",
        "identity",
        "clustering",
    ],
    ["add_actions", "properties"],
    ["row_views", "row_ids"],
    ["commit"],
    ["operations", "importer"],
    ["mirror"],
    [
        "frontends.grammar",
        "frontends.references",
        "frontends.words",
        "frontends.parameters",
        "frontends.definitions",
        "frontends.ddl",
        "frontends.sql",
        "frontends.rows",
        "frontends.from_items",
        "frontends.key_ranges",
    ],
    ["frontends.merge", "frontends.inserts", "frontends.dml", "frontends.merger"],
    ["feed", "upkeep", "maintenance", "transaction", "table"],
    ["frontends.functions"],
    ["lake"],
    ["lakes"],
    ["migrate"],
    ["frontends", "demo", "spark", "__main__"],
]

# Who may know sqlglot: what parses SQL. Who may know a catalog's driver: the catalog. DuckDB is both: the engine that
# everything runs on, and a catalog; what only the catalog may do with it is to connect.
SQLGLOT = ["statements", "predicate", "rules", "frontends", "lake", "transaction"]
DRIVERS = {"sqlite3", "psycopg", "psycopg_pool"}


def room(module: str) -> int:
    """The room of a module: that of the longest name that fits."""
    name = module.removeprefix("deltaduck").removeprefix(".")
    fits = [(len(entry), i) for i, entries in enumerate(ROOMS) for entry in entries if f"{name}.".startswith(f"{entry}.")]
    assert fits or not name, f"{module} stands in no room: say in ROOMS where it belongs"
    return max(fits)[1] if fits else len(ROOMS)


def imports(path: Path) -> list[tuple[str, bool]]:
    """(module, only for types?) of every import in a file, inside functions too."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, id(node) in typing) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [(name if name in MODULES else str(node.module), id(node) in typing) for name in whole]
    return found


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_one_way(module: str) -> None:
    for imported, only_types in imports(MODULES[module]):
        if imported.split(".")[0] == "deltaduck" and not only_types:
            assert room(imported) <= room(module), f"{module} imports {imported}, which stands further out"


def test_no_import_runs_in_a_circle() -> None:
    edges = {m: {i for i, only_types in imports(path) if i in MODULES and not only_types} for m, path in MODULES.items()}
    done: set[str] = set()

    def walk(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " -> ".join((*way, module))
        if module not in done:
            for target in edges[module]:
                walk(target, (*way, module))
            done.add(module)

    for module in MODULES:
        walk(module, ())


@pytest.mark.parametrize("module", MODULES)
def test_libraries_stay_in_their_rooms(module: str) -> None:
    name = module.removeprefix("deltaduck").removeprefix(".")
    used = {imported.split(".")[0] for imported, _ in imports(MODULES[module])}
    if not any(f"{name}.".startswith(f"{entry}.") for entry in SQLGLOT):
        assert "sqlglot" not in used
    if not name.startswith("catalog"):
        assert not used & DRIVERS


@pytest.mark.parametrize("module", [m for m in MODULES if m.startswith("deltaduck.protocol")])
def test_the_protocol_does_no_input_or_output(module: str) -> None:
    assert not {imported.split(".")[0] for imported, _ in imports(MODULES[module])} & {"os", "pathlib", "duckdb", "io", "shutil"}


@pytest.mark.parametrize("module", MODULES)
def test_modules_are_small(module: str) -> None:
    assert len(MODULES[module].read_text(encoding="utf-8").splitlines()) <= 500


@pytest.mark.parametrize("module", MODULES)
def test_no_error_is_swallowed(module: str) -> None:
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ExceptHandler):
            broad = node.type is None or ast.unparse(node.type) in ("Exception", "BaseException")
            silent = all(isinstance(statement, ast.Pass | ast.Continue) for statement in node.body)
            assert not (broad and silent), f"line {node.lineno}"
