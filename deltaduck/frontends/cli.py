"""The command line: look at a lake, query it, keep its mirror right."""

from __future__ import annotations

import csv
import json
import math
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

try:
    import typer
    from rich.text import Text
    from typer.core import TyperGroup

    from deltaduck.frontends import terminal
except ModuleNotFoundError as e:
    if (e.name or "").split(".")[0] not in ("typer", "rich"):
        raise
    raise SystemExit("the command line needs typer and rich: pip install 'deltaduck[cli]'") from e

import duckdb

from deltaduck import statements, uris
from deltaduck._version import __version__
from deltaduck.errors import CatalogError, DeltaduckError
from deltaduck.lake import Lake, connect
from deltaduck.listing import size_text
from deltaduck.migrate import migrate as copy_catalog
from deltaduck.mirror import reconciler
from deltaduck.operations import fsck
from deltaduck.operations import optimize as optimizing
from deltaduck.parquet import translate
from deltaduck.protocol.features import size_bytes


class Group(TyperGroup):
    """Commands whose DeltaduckErrors end as one red line and exit code 1."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except DeltaduckError as e:
            terminal.console(stderr=True).print(Text(terminal.one_line(str(e)), style="bold red"), soft_wrap=True)
            raise typer.Exit(1) from e


class Format(StrEnum):
    table = "table"
    csv = "csv"
    json = "json"


class Database(StrEnum):
    duckdb = "duckdb"
    sqlite = "sqlite"
    postgres = "postgres"


app = typer.Typer(
    cls=Group, no_args_is_help=True, pretty_exceptions_enable=False, help="Delta Lake tables whose log lives in a SQL database."
)
mirror = typer.Typer(no_args_is_help=True, help="The published _delta_log of each table.")
app.add_typer(mirror, name="mirror")

LakePath = Annotated[
    str, typer.Option("--lake", "-l", envvar="DELTADUCK_LAKE", metavar="PATH", help="The catalog: a file or a URI.")
]
Limit = Annotated[int | None, typer.Option("--limit", "-n", min=0, help="Show at most so many rows.")]
Output = Annotated[Format, typer.Option("--format", "-f", help="For people, or for programs.")]
Table = Annotated[str, typer.Argument(help="A table's name.")]
AnyTable = Annotated[str | None, typer.Argument(help="A table's name; every table, unless given.")]
DEFAULT_LAKE = "lake.duckdb"
PLAIN = 1000  # more rows than that are lined up without rich, which takes milliseconds for each
SCREEN = 40  # rows that a table shows unless told otherwise


def main() -> None:
    """Entry point of the ``deltaduck`` command."""
    app(prog_name="deltaduck")


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None: ...


@app.command()
def demo(
    directory: Annotated[Path, typer.Option("--dir", help="Made anew; replaced only if the demo made it.")] = Path(
        "deltaduck-demo"
    ),
) -> None:
    """A tour on real data: every flight that left New York in 2013. Needs the demo extra."""
    from deltaduck import demo as tour

    tour.run(Path(directory), terminal.console())


@app.command()
def sql(
    query: Annotated[str, typer.Argument(help="One or more statements; - reads them from standard input.")],
    lake: LakePath = DEFAULT_LAKE,
    limit: Limit = None,
    output: Output = Format.table,
    create: Annotated[bool, typer.Option("--create", help="Make the lake when there is none.")] = False,
    storage: Annotated[str | None, typer.Option("--storage", help="Where the data files of a new lake go.")] = None,
) -> None:
    """Run SQL: SELECT (with AT (VERSION => n)), INSERT, UPDATE, DELETE, CREATE TABLE ... AS, DROP TABLE."""
    with open_lake(lake, create=create, storage=storage) as opened:
        relation = opened.sql(sys.stdin.read() if query == "-" else query)
        if relation is not None:
            most = _most(limit, output)
            show(relation.columns, rows_of(relation, None if most is None else most + 1), output, most)


@app.command()
def tables(lake: LakePath = DEFAULT_LAKE, output: Output = Format.table) -> None:
    """The tables: version, rows, files and bytes, last commit, place."""
    with open_lake(lake) as opened:
        query = (
            "SELECT table_name, count(*), CAST(sum(num_records) AS BIGINT), CAST(sum(size) AS BIGINT) "
            "FROM dl_live_files GROUP BY table_name"
        )
        totals = {name: rest for name, *rest in opened.catalog.fetch(query)}
        columns = ["table", "version", "rows", "files", "size", "committed", "operation", "location"]
        rows = []
        for t in opened.tables():
            files, count, size = totals.get(t["name"], (0, 0, 0))
            shown = size_text(size) if output is Format.table else size
            rows.append((t["name"], t["version"], count, files, shown, t["committed"], t["operation"], t["location"]))
        show(columns, rows, output)


@app.command()
def history(table: Table, lake: LakePath = DEFAULT_LAKE, limit: Limit = 20, output: Output = Format.table) -> None:
    """The commits of a table, newest first."""
    with open_lake(lake) as opened:
        found = opened.table(table).history(limit)
        columns = ["version", "timestamp", "operation", "operation_parameters", "operation_metrics", "user_name", "user_metadata"]
        show(columns, found.rows(columns), output)


@app.command()
def files(
    table: Table,
    lake: LakePath = DEFAULT_LAKE,
    predicate: Annotated[str | None, typer.Option("--filter", help="Only files that can hold a row matching this SQL.")] = None,
    version: Annotated[int | None, typer.Option("--version", help="As of a version.")] = None,
    limit: Limit = None,
    output: Output = Format.table,
) -> None:
    """The data files of a table, and how many of them a predicate spares."""
    with open_lake(lake) as opened:
        selected = opened.table(table) if version is None else opened.table(table).as_of(version=version)
        kept, total = selected.files(predicate), selected.files().num_rows
        columns = ["path", "num_records", "size", "partition_values", "version"]
        show(columns, zip(*(kept[c].to_pylist() for c in columns)), output, _most(limit, output))
        if predicate is not None:
            verdict = f"{kept.num_rows} of {total} files can hold a matching row; {total - kept.num_rows} are skipped"
            terminal.console(stderr=output is not Format.table).print(Text(verdict))


@app.command("import")
def import_(
    source: Annotated[str, typer.Argument(help="The directory of a Delta table.")],
    name: Annotated[str | None, typer.Argument(help="What the lake calls it; the directory's name, unless given.")] = None,
    lake: LakePath = DEFAULT_LAKE,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would come in.")] = False,
    up_to_version: Annotated[int | None, typer.Option("--up-to-version", help="As if the log ended there.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Bring in the commits made elsewhere since.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the table of that name.")] = False,
    checkpoint_only: Annotated[bool, typer.Option("--checkpoint-only", help="No history before the newest checkpoint.")] = False,
    skip_validation: Annotated[bool, typer.Option("--skip-validation", help="Do not compare with a second replay.")] = False,
) -> None:
    """Bring an existing Delta table into the lake, with its history. The table stays where it is."""
    out = terminal.console()
    with open_lake(lake, create=True) as opened, terminal.progress(terminal.console(stderr=True)) as bar:
        found = opened.import_table(
            source, name, dry_run=dry_run, up_to_version=up_to_version, resume=resume, force=force,
            checkpoint_only=checkpoint_only, skip_validation=skip_validation, progress=terminal.stages(bar),
        )  # fmt: skip
    out.print(Text(("would import " if dry_run else "") + terminal.printable(str(found))), soft_wrap=True)


@app.command()
def optimize(
    table: Table,
    lake: LakePath = DEFAULT_LAKE,
    where: Annotated[str | None, typer.Option("--where", help="Only partitions that match this SQL.")] = None,
    zorder: Annotated[str | None, typer.Option("--zorder", help="Sort rows by these columns, comma-separated.")] = None,
    target_size: Annotated[str | None, typer.Option("--target-size", help="How large files get, such as 128mb.")] = None,
) -> None:
    """Put small files together, or sort rows. The rows stay what they are, and nobody has to wait."""
    size = None if target_size is None else size_bytes({"size": target_size}, "size", 0)
    with open_lake(lake) as opened:
        if zorder is None:
            found = optimizing.compact(opened, table, where, size)
        else:
            found = optimizing.z_order(opened, table, [c.strip() for c in zorder.split(",")], where, size)
        typer.echo(f"{found['numFilesRemoved']} files became {found['numFilesAdded']}, of {found['totalConsideredFiles']}")


@app.command()
def vacuum(
    table: Table,
    lake: LakePath = DEFAULT_LAKE,
    retain: Annotated[float | None, typer.Option("--retain", metavar="HOURS", help="Unless told, as the table says.")] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Delete the files; without it they are only listed.")] = False,
    full: Annotated[bool, typer.Option("--full", help="Look into the directory for what crashed writers left.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Let --retain be less than the table's retention.")] = False,
) -> None:
    """List, or delete, data files that no version within the retention needs."""
    with open_lake(lake) as opened:
        paths = opened.table(table).vacuum(retain, not delete, not force, full=full)
        for path in paths:
            typer.echo(terminal.printable(path))
        typer.echo(f"{len(paths)} files {'deleted' if delete else 'would be deleted; --delete does it'}", err=True)


@app.command()
def restore(
    table: Table,
    lake: LakePath = DEFAULT_LAKE,
    version: Annotated[int | None, typer.Option("--version", help="To a version.")] = None,
    timestamp: Annotated[str | None, typer.Option("--timestamp", help="To a time, such as 2024-12-31T23:59:59+00:00.")] = None,
) -> None:
    """Make a table what it was at a version or a time, in a new commit."""
    if (version is None) == (timestamp is None):
        raise typer.BadParameter("say --version or --timestamp")
    with open_lake(lake) as opened:
        found = opened.table(table).restore(version if timestamp is None else timestamp)  # type: ignore[arg-type]
        typer.echo(f"{found['numRestoredFile']} files restored, {found['numRemovedFile']} removed")


@app.command("fsck")
def check(
    tables: Annotated[list[str] | None, typer.Argument(help="Names of tables; every table, unless given.")] = None,
    lake: LakePath = DEFAULT_LAKE,
    repair: Annotated[bool, typer.Option("--repair", help="Make again what can be made from the log without a loss.")] = False,
    output: Output = Format.table,
) -> None:
    """Look for what is wrong: catalog, skip index, files, mirror. Exit code 1 when something is, and stays."""
    with open_lake(lake) as opened:
        found = opened.fsck(*tables or (), repair=repair)
        if found or output is not Format.table:
            show(found.columns, found.rows(), output)
        whole = fsck.is_whole(found)
        verdict = "nothing is wrong" if whole else "something is wrong: the way out is in the last column"
        terminal.console(stderr=True).print(Text(verdict, style="" if whole else "bold red"))
        if not whole:
            raise typer.Exit(1)


@app.command()
def schema(
    database: Annotated[Database, typer.Option("--database", "-d", help="Whose SQL.")] = Database.duckdb,
) -> None:
    """Print the catalog's DDL for a database: functions, migrations, indexes, views. Opens no lake."""
    newest = max(version for version, _ in statements.migrations())
    typer.echo(f"-- The catalog of deltaduck {__version__} for {database}, schema version {newest}.")
    typer.echo("-- Connecting to an empty database creates all of it; connecting to one where this was run uses it.\n")
    for function in statements.functions(database):
        typer.echo(f"{function};\n")
    for version, script in statements.migrations():
        typer.echo(f"-- Migration {version}\n{script.strip()}\n")
    for index in statements.indexes(database):
        typer.echo(f"{index};\n")
    for view in statements.views(database).values():
        typer.echo(f"{view};\n")


@app.command()
def migrate(
    source: Annotated[str, typer.Argument(help="The lake as it is: a file or a URI.")],
    target: Annotated[str, typer.Argument(help="A new file, or an empty PostgreSQL schema.")],
    output: Output = Format.table,
) -> None:
    """Copy a whole catalog, history included, into another database, and verify the copy. Data files stay where they are."""
    with terminal.progress(terminal.console(stderr=True)) as bar:
        task = bar.add_task("opening", total=None)
        found = copy_catalog(
            source, target, progress=lambda what, done, total: bar.update(task, description=what, completed=done, total=total)
        )
    show(found.columns, [list(row.values()) for row in found], output)
    verdict = "copied and verified; the source is as it was: from now on, write to one of the two only"
    terminal.console(stderr=True).print(Text(verdict))


@mirror.command()
def status(table: AnyTable = None, lake: LakePath = DEFAULT_LAKE, output: Output = Format.table) -> None:
    """How far each table's _delta_log is, and what went wrong last."""
    with open_lake(lake) as opened:
        found = opened.mirror.status(table)
        show(found.columns, [list(row.values()) for row in found], output)


@mirror.command()
def reconcile(table: AnyTable = None, lake: LakePath = DEFAULT_LAKE) -> None:
    """Publish every commit that is not published yet."""
    with open_lake(lake) as opened:
        typer.echo(f"{opened.mirror.reconcile(table)} versions published")


@mirror.command()
def adopt(table: Table, lake: LakePath = DEFAULT_LAKE) -> None:
    """Take in what somebody else committed to a table's _delta_log; ours that were not published follow it."""
    with open_lake(lake) as opened:
        done = opened.mirror.adopt(table)
        typer.echo("there is nothing of somebody else" if done is None else terminal.printable(str(done)))


@mirror.command()
def run(
    lake: LakePath = DEFAULT_LAKE,
    once: Annotated[bool, typer.Option("--once", help="Publish what is owed, and end; for cron.")] = False,
    interval: Annotated[float, typer.Option("--interval", min=0.01, metavar="SECONDS", help="Between two looks.")] = 5.0,
    alert: Annotated[float, typer.Option("--alert", min=0, metavar="SECONDS", help="Say so when a table lags more.")] = 60.0,
) -> None:
    """Publish what is committed, until told to stop (SIGTERM); exit code 1 when it fails, or lags, in the end."""
    stop, out = threading.Event(), terminal.console(stderr=True)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with open_lake(lake, mirror="manual") as opened:
        if opened.catalog.database == "duckdb" and not once:
            raise CatalogError(
                f"{opened.catalog.name} lets one process in: publish from the one that writes (mirror='async'), or use --once"
            )
        found = reconciler.run(
            opened.mirror, stop, interval=interval, alert=alert, once=once,
            say=lambda text: out.print(Text(terminal.one_line(text)), soft_wrap=True),
        )  # fmt: skip
    if found.problems or found.late(alert):
        raise typer.Exit(1)


@mirror.command()
def clean(table: AnyTable = None, lake: LakePath = DEFAULT_LAKE) -> None:
    """Delete commits and checkpoints from the published logs that are older than the log's retention."""
    with open_lake(lake) as opened:
        typer.echo(f"{opened.mirror.clean_up(table)} files deleted")


@mirror.command()
def verify(
    table: AnyTable = None,
    repair: Annotated[bool, typer.Option("--repair", help="Write again what is missing or wrong.")] = False,
    lake: LakePath = DEFAULT_LAKE,
) -> None:
    """Compare each published log with the catalog; exit code 1 when one differs."""
    with open_lake(lake) as opened:
        names = [t["name"] for t in opened.tables()] if table is None else [table]
        out = terminal.console()
        with terminal.progress(out) as bar:
            found = [opened.mirror.verify(name, repair=repair) for name in bar.track(names, description="verifying")]
        for verdict in found:
            out.print(Text(terminal.printable(str(verdict)), style="" if verdict else "bold red"), soft_wrap=True)
        if not all(found):
            raise typer.Exit(1)


# --- what the commands share


def open_lake(target: str, *, create: bool = False, storage: str | None = None, mirror: str | None = None) -> Lake:
    """The lake that a path or a URI names. CatalogError when its file is not there, unless it may be created."""
    found = uris.parse(target)
    is_file = found.database != "postgres" and found.place != ":memory:"
    if is_file and not create and not os.path.exists(os.path.expanduser(found.place)):
        raise CatalogError(f"no lake at {found.place}: name one with --lake PATH or the environment variable DELTADUCK_LAKE")
    return connect(target, storage=storage, mirror=mirror)


def rows_of(relation: Any, limit: int | None) -> Iterator[tuple[Any, ...]]:
    """The rows of a relation, batch by batch, as Python values; QueryError when DuckDB fails on the way."""
    try:
        limited = relation if limit is None else relation.limit(limit)
        for batch in limited.to_arrow_reader():
            yield from zip(*(column.to_pylist() for column in batch.columns))
    except duckdb.Error as e:
        raise translate(e, "the lake") from e


def show(columns: Sequence[str], rows: Iterable[Sequence[Any]], output: Format, most: int | None = None) -> None:
    """Print rows, all or the first; a table says when it was cut."""
    match output:
        case Format.csv:
            _print_csv(columns, islice(rows, most))
        case Format.json:
            _print_json(columns, islice(rows, most))
        case Format.table:
            found = list(islice(rows, None if most is None else most + 1))
            out = terminal.console()
            if len(found) > PLAIN:
                typer.echo("\n".join(terminal.plain(columns, found[:most])))
            else:
                out.print(terminal.table(columns, found[:most]))
            if most is not None and len(found) > most:
                out.print(Text(f"the first {most} rows; --limit shows more", style="dim"))


def _most(limit: int | None, output: Format) -> int | None:
    """How many rows to show: what was asked for, else a screenful for people and everything for programs."""
    return SCREEN if limit is None and output is Format.table else limit


def _print_csv(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_csv_cell(_plain(v)) for v in row])


def _csv_cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False, default=_plain) if isinstance(value, dict | list | tuple) else value


def _print_json(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A JSON array, one row to a line."""
    separator = "["
    for row in rows:
        typer.echo(separator, nl=separator == ",")
        members = dict(zip(columns, map(_plain, row), strict=True))
        typer.echo(json.dumps(members, ensure_ascii=False, default=_plain), nl=False)
        separator = ","
    typer.echo("[]" if separator == "[" else "]")


def _plain(value: Any) -> Any:
    """A value as JSON has it: whole decimals are numbers, times are ISO 8601, bytes are hexadecimal."""
    match value:
        case float() if not math.isfinite(value):
            return str(value)
        case None | bool() | int() | float() | str() | dict() | list() | tuple():
            return value
        case Decimal():
            return int(value) if value == value.to_integral_value() else float(value)
        case bytes():
            return value.hex()
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


if __name__ == "__main__":
    main()
