"""A whole catalog into another database: verified, in one transaction of the target."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from deltaduck import row_views, skip_index, statements, uris
from deltaduck import snapshot as snapshots
from deltaduck.catalog import Catalog
from deltaduck.catalog.arrow import column_types
from deltaduck.catalog.opening import open_catalog
from deltaduck.errors import CatalogError, UnsupportedFeatureError
from deltaduck.listing import Listing
from deltaduck.protocol.stats import SkipColumn

Progress = Callable[[str, int, int], None]  # what is being done, rows done, rows in all
_INDEX = {"BIGINT": pa.int64(), "DOUBLE PRECISION": pa.float64(), "TEXT": pa.string()}


def migrate(source: str | os.PathLike[str], target: str | os.PathLike[str], *, progress: Progress | None = None) -> Listing:
    """Copy the catalog `source` to the new catalog `target`, each whatever ``deltaduck.connect`` takes.

    History, statistics and the state of the mirror are copied; data files and published logs stay where they are, and the
    copy refers to them. Both catalogs then describe the same tables: write to one of them only.

    What was copied is read back and compared before it is committed. Whatever happens before that, the target is without a
    lake, and can be migrated to again. What others commit to the source meanwhile is not in the copy.

    The rows and the checksum of each table of the catalog. CatalogError when the source holds no lake, the target is not
    empty, or the copy differs.
    """
    old_place, new_place = uris.parse(os.fspath(source)), uris.parse(os.fspath(target))
    if (file := _file(old_place)) and not os.path.exists(file):
        raise CatalogError(f"there is no lake at {file}")
    with contextlib.closing(open_catalog(old_place)) as old:
        if not old.lake_row():
            raise CatalogError(f"{old.name} holds no lake")
        old.open(None)  # one of an older schema becomes one of today's
        with _gone_unless_done(_file(new_place)), contextlib.closing(open_catalog(new_place)) as new:
            return _copy(old, new, progress or (lambda what, done, total: None))


def _file(place: uris.Target) -> str | None:
    return None if place.database == "postgres" or place.place == ":memory:" else os.path.expanduser(place.place)


@contextlib.contextmanager
def _gone_unless_done(file: str | None) -> Iterator[None]:
    """A file that did not exist before does not exist after a failure."""
    existed = file is None or os.path.exists(file)
    try:
        yield
    except BaseException:
        if file is not None and not existed:
            for name in (file, file + ".wal"):
                with contextlib.suppress(OSError):
                    os.remove(name)
        raise


def _copy(old: Catalog, new: Catalog, progress: Progress) -> Listing:
    engine = new.engine()
    with old.snapshot(), new.transaction():
        new.run("lock_catalog")
        new.create_tables()
        if new.rows("read_lake"):
            raise CatalogError(f"{new.name} holds a lake already: give a new file, or another schema")
        parts = _parts(old)
        for part in parts:
            if part.index_of is not None:
                skip_index.create_table(new, part.index_of, part.skip)
        meter = _Meter(progress, 2 * sum(old.fetch(f"SELECT count(*) FROM {p.table}")[0][0] for p in parts))
        sums = []
        for part in parts:
            sums.append(_Sum(engine))
            for batch in old.fetch_batches(part.query, part.columns):
                new.ingest(part.table, batch)
                sums[-1].add(batch)
                meter.add(f"copying {part.table}", batch.num_rows)
        for part, wanted in zip(parts, sums, strict=True):
            found = _Sum(engine)
            for batch in new.fetch_batches(part.query, part.columns):
                found.add(batch)
                meter.add(f"verifying {part.table}", batch.num_rows)
            if found != wanted:
                raise CatalogError(
                    f"{part.table} is not the same in {new.name}: it has {found.rows} rows with checksum {found}, "
                    f"and not {wanted.rows} with {wanted}; nothing was kept"
                )
        _show_rows(new)
    return Listing(["table", "rows", "checksum"], [(p.table, s.rows, str(s)) for p, s in zip(parts, sums, strict=True)])


@dataclass(frozen=True)
class _Part:
    """One table of a catalog; of a skip index, also which table's it is and what it holds."""

    table: str
    columns: Mapping[str, pa.DataType]
    index_of: int | None = None
    skip: Sequence[SkipColumn] = ()

    @property
    def query(self) -> str:
        return f"SELECT {', '.join(self.columns)} FROM {self.table}"


def _parts(catalog: Catalog) -> list[_Part]:
    """All that a catalog holds."""
    script = "\n".join(text for _, text in statements.migrations())
    types = column_types()
    parts = []
    for table in re.findall(r"^CREATE TABLE (\w+)", script, re.MULTILINE):
        names = catalog.fetch_arrow(f"SELECT * FROM {table} LIMIT 0").column_names
        parts.append(_Part(table, {name: types[name] for name in names}))
    for table_id, _ in sorted(catalog.rows("table_versions")):
        rows = catalog.rows("skip_columns", table_id=table_id)
        skip = [SkipColumn(ordinal, tuple(json.loads(path)), kind, bool(partition)) for ordinal, path, kind, partition in rows]
        keys = dict.fromkeys(("version", "action_order", "num_records"), pa.int64())
        columns = keys | {name: _INDEX[kind] for column in skip for name, kind in column.definitions()}
        parts.append(_Part(f"dl_skip_{table_id}", columns, table_id, skip))
    return parts


class _Sum:
    """Number and checksum of rows, whatever their order and the batches they come in."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.rows = 0
        self.value = 0

    def add(self, batch: pa.Table) -> None:
        self._engine.register("dl_summed", batch)
        ((value,),) = self._engine.execute(f"SELECT sum(hash({', '.join(batch.column_names)})) FROM dl_summed").fetchall()
        self._engine.unregister("dl_summed")
        self.rows += batch.num_rows
        self.value = (self.value + int(value or 0)) % 2**64

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Sum) and (self.rows, self.value) == (other.rows, other.value)

    __hash__ = None  # type: ignore[assignment]

    def __str__(self) -> str:
        return f"{self.value:016x}"


class _Meter:
    """Counts rows for who watches."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def add(self, what: str, rows: int) -> None:
        self._done += rows
        self._progress(what, self._done, self._total)


def _show_rows(catalog: Catalog) -> None:
    """The views of rows, where the database can have them. A table that cannot be read has none."""
    for name, table_id, *_ in catalog.rows("list_tables"):
        with contextlib.suppress(UnsupportedFeatureError):
            table = snapshots.load(catalog, name)
            row_views.publish(catalog, table, table_id, has_files=table.has_files)
