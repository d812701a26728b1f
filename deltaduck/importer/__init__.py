"""Existing Delta logs → the catalog, set-wise, with their whole history.

DuckDB turns the log's files into relations (``replay``), the catalog takes them in one transaction, and the result is
compared with an independent replay before that commits.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from deltaduck import commit as commits
from deltaduck import identity, row_views, skip_index, storage
from deltaduck import snapshot as snapshots
from deltaduck.catalog import Catalog
from deltaduck.catalog.base import now_ms
from deltaduck.errors import (
    CommitConflictError,
    LogCorruptError,
    MirrorError,
    TableExistsError,
    TableNotFoundError,
    UnsupportedFeatureError,
)
from deltaduck.importer import replay
from deltaduck.importer.replay import Progress
from deltaduck.importer.segment import Segment, segments
from deltaduck.listing import size_text
from deltaduck.operations.create import check_table_name
from deltaduck.protocol import stats
from deltaduck.protocol.features import CATALOG_MANAGED, Protocol, check_lists, check_readable
from deltaduck.protocol.schema import Struct, to_duckdb
from deltaduck.snapshot import Snapshot

log = logging.getLogger("deltaduck.importer")
MOST_TRIES = 4
ACTIONS = ("remove_files", "metadata_updates", "protocol_updates", "txn_actions", "domain_metadata", "cdc_files", "other_actions")


@dataclass(frozen=True)
class Imported:
    """What an import brought in, or with dry_run would. versions: (first, last), None when there was nothing new."""

    table: str
    location: str
    versions: tuple[int, int] | None
    files: int
    size_in_bytes: int
    checkpoint: int | None
    warnings: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        if self.versions is None:
            return f"{self.table!r}: nothing new at {self.location}"
        start = "" if self.checkpoint is None else f" (from the checkpoint of version {self.checkpoint} on)"
        what = f"{self.files:,} live files, {size_text(self.size_in_bytes)}"
        notes = "".join(f"; {w}" for w in self.warnings)
        return f"{self.table!r}: versions {self.versions[0]} to {self.versions[1]}{start}, {what}{notes}"


def import_table(
    catalog: Catalog,
    path: str,
    name: str | None = None,
    *,
    dry_run: bool = False,
    up_to_version: int | None = None,
    resume: bool = False,
    force: bool = False,
    checkpoint_only: bool = False,
    skip_validation: bool = False,
    progress: Progress | None = None,
) -> Imported:
    """See ``Lake.import_table``."""
    location = storage.normalize(path, catalog.access)
    try:
        return _import(
            catalog, location, name, up_to_version, resume=resume, force=force, checkpoint_only=checkpoint_only,
            dry_run=dry_run, validate=not skip_validation, progress=progress,
        )  # fmt: skip
    except LogCorruptError as e:
        raise e if location in str(e) else LogCorruptError(f"{location}: {e}; nothing was imported") from e


def _import(
    catalog: Catalog, location: str, name: str | None, up_to_version: int | None, *, resume: bool, force: bool,
    checkpoint_only: bool, dry_run: bool, validate: bool, progress: Progress | None,
) -> Imported:  # fmt: skip
    name = name or location.rsplit("/", 1)[-1]
    check_table_name(name)
    resumed = snapshots.load(catalog, name) if resume else None
    if resumed is not None and resumed.location != location:
        raise TableExistsError(f"table {name!r} is at {resumed.location}, not at {location}: import that under another name")
    if not (resume or force) and catalog.rows("head", name_key=name.lower()):
        raise TableExistsError(f"table {name!r} exists already: resume=True brings in later commits, force=True replaces it")
    files = storage.list_log(location)
    if files is None:
        raise TableNotFoundError(f"there is no Delta table at {location}: it has no _delta_log")
    found = segments(files, up_to_version)
    job = Job(catalog, name, location, files, resumed, progress or (lambda what, done, total: None), [], takes_over=force)
    if resumed is not None:
        if (rest := job.remaining(found[0], resumed)) is None:
            return Imported(name, location, None, 0, 0, None)
        return job.run(rest, found, dry_run=dry_run, validate=validate)
    first: LogCorruptError | None = None
    for segment in _tries(found, checkpoint_only):
        try:
            return job.run(segment, found, dry_run=dry_run, validate=validate)
        except LogCorruptError as e:
            log.warning("%s: %s", location, e)
            job.warnings.append(str(e))
            first = first or e
    assert first is not None
    raise first


def _tries(found: Sequence[Segment], checkpoint_only: bool) -> list[Segment]:
    """The segment with the longest history first; then the newest checkpoints, which are what other readers start from."""
    newest = [s for s in reversed(found) if s.checkpoint]
    if checkpoint_only and newest:
        return newest[:MOST_TRIES]
    return [found[0], *[s for s in newest if s is not found[0]]][:MOST_TRIES]


@dataclass(frozen=True)
class Job:
    """One import under way. resumed: the table as the catalog has it, when later commits are brought in."""

    catalog: Catalog
    name: str
    location: str
    files: Mapping[str, tuple[int, int]]
    resumed: Snapshot | None
    progress: Progress
    warnings: list[str]
    takes_over: bool = False  # a table that another catalog manages

    def run(self, segment: Segment, found: Sequence[Segment], *, dry_run: bool, validate: bool) -> Imported:
        before = self.catalog.arrow("live_file_keys", table_id=self.resumed.table_id) if self.resumed else None
        con = replay.replay(self.location, segment, self.files, before, self.progress)
        try:
            after = self.described(con, segment)
            if not dry_run:
                with self.catalog.transaction():
                    table_id = self.load(con, segment, after)
                    if validate:
                        self._compare(con, segment, found, after, table_id)
            ((count, size),) = con.execute(replay.sql("replay_totals")).fetchall()
        except duckdb.Error as e:  # the scratch database's: a catalog's own errors are translated already
            raise LogCorruptError(f"the log at {self.location} cannot be read: {str(e).splitlines()[0]}") from e
        finally:
            con.close()
        checkpoint = segment.base if segment.base >= 0 else None
        first = self.resumed.version + 1 if self.resumed else segment.first
        return Imported(self.name, self.location, (first, segment.latest), count, size, checkpoint, self.warnings)

    def remaining(self, found: Segment, resumed: Snapshot) -> Segment | None:
        """The commits after the version that the catalog has; None when there are none."""
        owed = [*self.catalog.rows("pending"), *self.catalog.rows("diverged")]
        if any(row[0] == resumed.table_id for row in owed):
            raise MirrorError(
                f"table {self.name!r} has commits that are not in the log yet: lake.mirror.reconcile() first, then resume"
            )
        commits = tuple(c for c in found.commits if c[0] > resumed.version)
        if not commits and found.latest <= resumed.version:
            return None
        if not commits or commits[0][0] != resumed.version + 1:
            raise LogCorruptError(
                f"version {resumed.version + 1} of the log at {self.location} has been cleaned up: force=True imports it anew"
            )
        return Segment(-1, (), commits, -1, found.latest)

    def described(self, con: Any, segment: Segment) -> Snapshot:
        """The table at the segment's end, as far as metadata and protocol go. Refuses what cannot be read."""
        metadata = replay.rows(con, "replay_metadata_updates", table_id=-1, base=segment.base).read_all().sort_by("version")
        protocols = replay.rows(con, "replay_protocol_updates", table_id=-1, base=segment.base).read_all().sort_by("version")
        if self.resumed is None and not (metadata.num_rows and protocols.num_rows):
            missing = "metaData" if protocols.num_rows else "protocol"
            raise LogCorruptError(f"the log at {self.location} has no {missing} action: it describes no table")
        after = self.resumed or _NOTHING
        for row in protocols.slice(max(protocols.num_rows - 1, 0)).to_pylist():
            after = replace(after, protocol=_protocol(row), protocol_version=row["version"])
        check_readable(after.protocol, self.name)
        if CATALOG_MANAGED in (after.protocol.reader_features or ()) and not (self.resumed or self.takes_over):
            raise UnsupportedFeatureError(
                f"the table at {self.location} is managed by a catalog, and that alone knows its newest version: open it there; "
                "where that catalog is lost, lake.import_table(..., force=True) takes the table over"
            )
        for row in metadata.slice(max(metadata.num_rows - 1, 0)).to_pylist():
            after = replace(after, metadata_version=row["version"], **snapshots.parse_metadata(row))
        to_duckdb(after.schema)  # refuses types that cannot be read
        return replace(after, name=self.name, location=self.location, version=segment.latest, latest=segment.latest)

    def load(self, con: Any, segment: Segment, after: Snapshot) -> int:
        """The catalog's rows of all actions, inside the caller's transaction; the table's id."""
        catalog, base = self.catalog, segment.base
        table_id = self.resumed.table_id if self.resumed else self._new_table()
        found = snapshots.all_skip_columns(catalog, self.resumed) if self.resumed else []
        columns = skip_index.plan(found, stats.skip_columns(after.schema, after.partition_columns, after.configuration))
        (skip_index.redefine if self.resumed else skip_index.create)(catalog, table_id, columns)
        if self.resumed:
            identity.follow(catalog, table_id, after.schema)
        commit_ms = self._add_versions(con, segment, table_id)
        for kind in ACTIONS:
            for batch in replay.rows(con, f"replay_{kind}", table_id=table_id, base=base):
                catalog.ingest(f"dl_{kind}", pa.Table.from_batches([batch]))
        has_files = self._add_files(con, table_id, base, columns, after.schema) or after.has_files
        if self.resumed:
            with catalog.staged("dl_staged_ends", replay.rows(con, "replay_ended_files").read_all()):
                catalog.run("end_files", table_id=table_id)
        catalog.run(
            "set_head", table_id=table_id, commit_ms=commit_ms, has_files=has_files, uniform_since=segment.latest + 1,
            metadata_version=after.metadata_version, protocol_version=after.protocol_version,
        )  # fmt: skip
        row_views.publish(catalog, after, table_id, has_files=has_files)
        return table_id

    def _new_table(self) -> int:
        if (old := self.catalog.head(self.name)) is not None:  # force
            commits.drop_table(self.catalog, old[0], self.name, now_ms())
        table_id = commits.new_table(self.catalog, self.name, self.location)
        if taken := self.catalog.rows("other_table_at", location=self.location, table_id=table_id):
            raise TableExistsError(f"{self.location} is in this lake already, as table {taken[0][0]!r}")
        return table_id

    def _add_versions(self, con: Any, segment: Segment, table_id: int) -> int:
        """The commits, each known to be in the log already; the time of the last."""
        expected, last_ms = (self.resumed.version, self.resumed.commit_ms) if self.resumed else (-1, -1)
        scope = {"table_id": table_id, "version": segment.latest, "expected": expected, "commit_ms": last_ms}
        if not self.catalog.execute(self.catalog.sql("advance_table"), scope):
            raise CommitConflictError(self.name, expected, segment.latest, "it was committed to while its log was read")
        versions = replay.rows(
            con, "replay_table_versions", table_id=table_id, import_id=str(uuid.uuid4()), after_ms=last_ms, after_version=expected
        ).read_all()
        self.catalog.ingest("dl_table_versions", versions)
        status = pc.if_else(pc.less_equal(versions["version"], pa.scalar(segment.base, pa.int64())), "CHECKPOINT", "SUCCESS")
        outbox = versions.select(["table_id", "version"]).append_column("status", status)
        outbox = outbox.append_column("is_checkpoint", pa.repeat(False, versions.num_rows))
        outbox = outbox.append_column("attempts", pa.repeat(pa.scalar(0, pa.int64()), versions.num_rows))
        self.catalog.ingest("dl_mirror_status", outbox.append_column("published_ms", versions["commit_ms"]))
        return int(pc.max(versions["commit_ms"]).as_py())

    def _add_files(self, con: Any, table_id: int, base: int, columns: Sequence[stats.SkipColumn], schema: Struct) -> bool:
        """The adds and their skip index, batch by batch; were there any?"""
        deriving, count = con.cursor(), 0
        ((total,),) = con.execute("SELECT count(*) FROM dl_file WHERE kind = 'add'").fetchall()
        for batch in replay.rows(con, "replay_add_files", table_id=table_id, base=base):
            adds = pa.Table.from_batches([batch])
            self.catalog.ingest("dl_add_files", adds)
            sources = adds.select(["version", "action_order", "stats", "partition_values"])
            sources = sources.append_column("exact_max", pa.repeat(False, adds.num_rows))
            self.catalog.ingest(f"dl_skip_{table_id}", skip_index.derive(deriving, sources, columns, schema))
            count += adds.num_rows
            self.progress("storing the files", count, total)
        return count > 0

    def _compare(self, con: Any, segment: Segment, found: Sequence[Segment], after: Snapshot, table_id: int) -> None:
        """LogCorruptError when the catalog's snapshot is not what an independent replay says: one that starts from the
        newest checkpoint where there is one, as other readers do, and takes the last word on each file."""
        other = next((s for s in reversed(found) if s.checkpoint and s.checkpoint != segment.checkpoint), None)
        scratch = None
        if other is not None and not self.resumed:
            try:
                scratch = replay.replay(self.location, other, self.files)
            except LogCorruptError as e:
                self.warnings.append(f"not compared with the checkpoint of version {other.checkpoint_version}: {e}")
        try:
            said = after if scratch is None or other is None else self.described(scratch, other)
            ours = self.catalog.arrow("checked_files", table_id=table_id)
            problems = _differences(scratch or con, ours)
            problems += [what for what, value in _definition(said).items() if value != _definition(after)[what]]
        finally:
            if scratch is not None:
                scratch.close()
        if problems:
            raise LogCorruptError(
                f"the log at {self.location} contradicts itself at version {segment.latest}; the history gives other "
                f"{', '.join(problems)} than the newest checkpoint and the commits after it"
            )


def _definition(snapshot: Snapshot) -> dict[str, Any]:
    """What a table is, by what. Features are a set, which some writers order anew in a checkpoint."""
    p = snapshot.protocol
    features = (None if names is None else frozenset(names) for names in (p.reader_features, p.writer_features))
    return {
        "schema": snapshot.schema,
        "protocol": (p.min_reader_version, p.min_writer_version, *features),
        "partition_columns": snapshot.partition_columns,
    }


def _differences(scratch: Any, ours: pa.Table) -> list[str]:
    cursor = scratch.cursor()
    cursor.register("dl_ours", ours)
    cursor.execute(f"CREATE TEMP TABLE dl_theirs AS {replay.sql('replay_live_files')}")
    ((missing, extra, other, example),) = cursor.execute(replay.sql("replay_difference")).fetchall()
    if not (missing or extra or other):
        return []
    return [f"files ({missing} are missing, {extra} too many and {other} described otherwise; {example!r} for one)"]


def _protocol(row: Mapping[str, Any]) -> Protocol:
    try:
        found = Protocol(
            int(row["min_reader_version"]), int(row["min_writer_version"]),
            snapshots.parse_features(row["reader_features"]), snapshots.parse_features(row["writer_features"]),
        )  # fmt: skip
        check_lists(found)
    except (ValueError, TypeError) as e:
        raise LogCorruptError(f"the protocol action of version {row['version']} cannot be read: {e}") from e
    return found


_NOTHING = Snapshot(
    table_id=-1, name="", location="", version=-1, latest=-1, uniform_since=-1, has_files=False, metadata_version=-1,
    protocol_version=-1, commit_ms=-1, metadata_id="", metadata_name=None, description=None, schema=Struct(()),
    partition_columns=(), configuration={}, created_ms=None, protocol=Protocol(1, 1),
)  # fmt: skip
