"""The wheel works alone. Run with the Python of an environment that holds the wheel and nothing for development.

``make wheel`` does. It uses the core dependencies only, in a directory of its own, far from the checkout.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import duckdb
import pyarrow as pa

import deltaduck
from deltaduck import statements

CHECKOUT = Path(__file__).resolve().parents[1]


def main() -> None:
    package = Path(deltaduck.__file__).resolve().parent
    assert package != CHECKOUT / "deltaduck", f"deltaduck came from the checkout: {package}"
    assert statements.ROOT.resolve() == package / "sql", f"the SQL came from {statements.ROOT}"
    assert statements.migrations(), "the wheel holds no migrations"
    assert (package / "py.typed").exists(), "the wheel does not say that it is typed"
    for extra in ("polars", "pandas", "deltalake", "typer", "rich"):
        assert importlib.util.find_spec(extra) is None, f"{extra} is installed: this would not show that the core works alone"
    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)
        use()
        os.chdir(package)  # Windows does not delete the directory it stands in
    refuse_compiled_sqlglot()
    print(f"deltaduck {deltaduck.__version__} on DuckDB {duckdb.__version__}: the wheel works, {package}")


def use() -> None:
    """Write, query, look back, verify, and read with a plain client."""
    with deltaduck.connect("lake.duckdb") as lake:
        lake.write("t", pa.table({"day": ["mon", "tue"], "n": [1, 2]}), partition_by="day")
        lake.write("t", pa.table({"day": ["tue"], "n": [3]}))
        lake.sql("UPDATE t SET n = 10 WHERE n = 1")
        assert lake.sql("SELECT sum(n) FROM t").fetchall() == [(15,)]
        assert lake.sql("SELECT sum(n) FROM t AT (VERSION => 0)").fetchall() == [(3,)]
        assert lake.table("t").files("day = 'mon'").num_rows == 1
        verdict = lake.mirror.verify("t")
        assert verdict, str(verdict)
    with duckdb.connect("lake.duckdb") as client:
        assert client.execute("SELECT sum(n) FROM t").fetchall() == [(15,)]
    assert Path("lake.delta/t/_delta_log", f"{2:020d}.json").exists()


def refuse_compiled_sqlglot() -> None:
    """Who has it for the sake of another package is told at once what to do, not by a TypeError of the first statement."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--only-binary", ":all:", f"sqlglotc=={version('sqlglot')}"], check=True)
    done = subprocess.run([sys.executable, "-c", "import deltaduck"], check=False, capture_output=True, text=True)
    subprocess.run([*pip, "uninstall", "--yes", "sqlglotc"], check=True)
    assert "MissingDependencyError" in done.stderr, done.stderr
    assert "pip uninstall sqlglotc" in done.stderr, done.stderr


if __name__ == "__main__":
    sys.exit(main())
