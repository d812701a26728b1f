"""Publishing in version order, and making up for what went wrong."""

from __future__ import annotations

import logging
import os
import random
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from deltaduck import snapshot as snapshots
from deltaduck import storage, telemetry
from deltaduck.catalog import Catalog
from deltaduck.catalog.base import now_ms
from deltaduck.commit import KINDS, Committed
from deltaduck.errors import CatalogError, DeltaduckError, MirrorError
from deltaduck.importer import adopt as adopting
from deltaduck.importer.adopt import Adopted
from deltaduck.listing import Listing, utc
from deltaduck.mirror import cleanup, compaction, leases
from deltaduck.mirror.background import Background
from deltaduck.mirror.checkpoint import write_checkpoint
from deltaduck.mirror.export import export_log
from deltaduck.mirror.publish import publish_commit
from deltaduck.mirror.verify import Verification, verify_table
from deltaduck.protocol import log as names
from deltaduck.snapshot import Snapshot

log = logging.getLogger("deltaduck.mirror")


MARK_EVERY = 32  # commits between two marks, where no other process can look
PART = 200  # versions of a table that are published between two looks at whether to stop
PATIENCE = 0.25  # seconds to wait for who holds a lease: he publishes for both, or is dead
SOON_MS = 200  # until the thread looks again at what somebody else is at: looking all the time slows him down


@dataclass(frozen=True)
class Round:
    """What one look at the outbox came to. lag: seconds, by table, for those that owe something: others may be at it."""

    published: int = 0
    lag: dict[str, float] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def late(self, alert: float) -> dict[str, float]:
        """The tables that lag more than so many seconds."""
        return {table: seconds for table, seconds in self.lag.items() if seconds > alert}


class Mirror:
    """The mirror of one lake. A commit is durable before it is published; whatever is owed is in ``dl_mirror_status``.

    mode: "sync" publishes before a commit returns, "async" in a thread of its own, "manual" when ``reconcile`` is called.
    """

    def __init__(self, catalog: Catalog, engine: Callable[[], Any], mode: str = "sync") -> None:
        self.mode = mode
        self._catalog = catalog
        self._engine = engine
        self._lock = threading.RLock()
        self._published: dict[int, int] = {}  # table_id -> newest version known to be in the mirror
        self._commits = 0
        self._holder = uuid.uuid4().hex  # of leases
        self._background = Background(self._publish_soon, self._retry) if mode == "async" else None

    def publish(self, committed: Sequence[Committed]) -> None:
        """Publish what was just committed. Never raises for a failure: it stays PENDING, is logged, and is retried later."""
        if self._background is not None:
            self._background.put(committed)
        elif self.mode == "sync":
            with self._lock:
                for c in committed:
                    self._publish_in_turn(c)

    def close(self) -> None:
        """Publish what waits in memory, and record what has been published. What fails is logged, and stays owed."""
        if self._background is not None and (waiting := self._background.close()):
            with self._lock:
                try:
                    for table_id, _, _, due in self._catalog.rows("pending"):
                        if table_id in waiting and (due is None or due <= now_ms()):
                            self._reconcile_table(table_id, leases.SECONDS)  # or all who close now do the same work
                except CatalogError as e:
                    self._unknown(e)
        self.flush()

    def flush(self) -> None:
        """Tell the catalog what has been published.

        Marks may be lost in a crash: the publication is then tried again, finds its own bytes, and is marked.
        """
        with self._lock:
            marks = dict(self._catalog.unmarked)
            if marks:
                with self._catalog.transaction():
                    for table_id, version in marks.items():
                        self._catalog.run("mark_published", table_id=table_id, version=version, now_ms=now_ms())
            for table_id, version in marks.items():
                if self._catalog.unmarked.get(table_id) == version:
                    del self._catalog.unmarked[table_id]

    def reconcile(self, table: str | None = None) -> int:
        """Publish all that is owed, for one table or all; how many versions were published.

        MirrorError names the tables whose publication failed again, after the others have been published.
        """
        with self._lock:
            self.flush()
            wanted = None if table is None else snapshots.load(self._catalog, table).table_id
            owed = sorted({row[0] for row in self._catalog.rows("pending") if wanted in (None, row[0])})
            published, failures = 0, []
            for table_id in owed:
                count, failure = self._reconcile_table(table_id, PATIENCE)
                published += count
                failures += [failure] if failure else []
            diverged = {row[0] for row in self._catalog.rows("diverged")}
            failures += [self._divergence(t) for t in sorted(diverged) if wanted in (None, t) and t not in owed]
        if failures:
            raise MirrorError("; ".join(failures))
        return published

    def catch_up(self, *, whatever_the_time: bool = False) -> Round:
        """Publish a part of what is owed by tables whose time has come, and which nobody else is at; what is left.

        Raises nothing but CatalogError. ``deltaduck mirror run`` does this again and again.
        """
        with self._lock:
            self.flush()
            published, problems = 0, []
            for table_id, _, _, due in self._catalog.rows("pending"):
                if whatever_the_time or due is None or due <= now_ms():
                    count, failure = self._reconcile_table(table_id, most=PART)
                    published += count
                    problems += [failure] if failure else []
            names = {row[1]: row[0] for row in self._catalog.rows("list_tables")}
            owing = {names.get(t, str(t)): (now_ms() - since) / 1000 for t, _, since, _ in self._catalog.rows("pending")}
            diverged = [self._divergence(t) for t, _ in self._catalog.rows("diverged")]
        return Round(published, owing, problems + [d for d in diverged if d not in problems])

    def status(self, table: str | None = None) -> Listing:
        """How far the mirror is, a row per live table, and what went wrong last."""
        with self._lock:
            self.flush()
        if table is not None:
            snapshots.load(self._catalog, table)
        columns = ["table", "version", "published_version", "pending", "diverged", "behind_since", "last_error", "next_attempt"]
        rows = [(*r[:5], utc(r[5]), r[6], utc(r[7])) for r in self._catalog.rows("mirror_state")]
        return Listing(columns, [r for r in rows if table is None or r[0].lower() == table.lower()])

    def checkpoint(self, table: str, version: int | None = None) -> None:
        """Publish what is owed for a table, and a checkpoint of its latest version, or of another. MirrorError."""
        self.reconcile(table)
        snapshot = snapshots.load(self._catalog, table, version)
        write_checkpoint(self._catalog, self._engine(), snapshot, snapshot.commit_ms)

    def verify(self, table: str, versions: range | tuple[int, int] | None = None, *, repair: bool = False) -> Verification:
        """Prove that the published log says what the catalog says: every JSON commit, and the newest checkpoint with its
        checksum; or the commits of a range of versions, and every checkpoint in it.

        versions: a range, or (first, last), both included. repair: publish what is owed, and write again what is missing or
        wrong; what was there instead is kept in ``_delta_log`` under a hidden name. Commits of somebody else stay: see ``adopt``.
        """
        if isinstance(versions, range):
            versions = (min(versions, default=0), max(versions, default=-1))
        with self._lock:
            self.flush()
            snapshot = snapshots.load(self._catalog, table)
            if repair:
                if storage.list_log(snapshot.location) is None and storage.list_files(snapshot.location):
                    storage.make_root(snapshot.location)  # the log alone is gone; where all is, a disk may not be mounted
                self._reconcile_table(snapshot.table_id, PATIENCE)
            return verify_table(self._catalog, self._engine(), snapshot, versions, repair=repair)

    def compact(self, table: str, first: int | None = None, last: int | None = None) -> str:
        """Write a log compaction of versions `first` to `last`, both included: one file that readers may read instead of these
        commits; its name. Unless told, it begins after the newest published checkpoint and ends with the newest version.

        MirrorError when one of the versions is not published, or there are less than two.
        """
        with self._lock:
            self.flush()
            return compaction.compact(self._catalog, snapshots.load(self._catalog, table), first, last)

    def clean_up(self, table: str | None = None) -> int:
        """Delete what the published logs no longer need, for one table or all; how many files went.

        Commits and checkpoints go that are older than ``delta.logRetentionDuration`` (30 days) and than a checkpoint that is.
        Tables with ``delta.enableExpiredLogCleanup = false`` keep theirs. The catalog forgets nothing.
        """
        with self._lock:
            self.flush()
            names = [row[0] for row in self._catalog.rows("list_tables")] if table is None else [table]
            return sum(cleanup.clean_up(self._catalog, snapshots.load(self._catalog, name), now_ms()) for name in names)

    def export(self, table: str, directory: str | os.PathLike[str]) -> int:
        """Write all that the catalog knows of a table's log into `directory`/_delta_log; how many versions.

        Beside a copy of the data files it is the table, with its history. Where that begins with a checkpoint, so does the log.
        MirrorError when `directory` holds a log already.
        """
        snapshot = snapshots.load(self._catalog, table)
        return export_log(self._catalog, self._engine(), snapshot, os.fspath(directory))

    def adopt(self, table: str) -> Adopted | None:
        """Take into the lake what somebody else committed to a table's ``_delta_log``, and publish ours behind it; what was
        done, None when there was nothing.

        Commits of ours that were not published get new version numbers, after theirs. MirrorError when ours read or changed
        what theirs changed: nothing has changed then.
        """
        with self._lock:
            self.flush()
            table_id = snapshots.load(self._catalog, table).table_id
            self._reconcile_table(table_id, PATIENCE)  # what is ours is known to be ours
            diverged = dict(self._catalog.rows("diverged")).get(table_id)
            if diverged is None and any(row[0] == table_id for row in self._catalog.rows("pending")):
                self.reconcile(table)  # says why
            done = adopting.adopt(self._catalog, table, diverged)
            self._published.pop(table_id, None)
            if done is not None:
                log.info("%s", done)
                self.reconcile(table)
            return done

    # --- in the background

    def _publish_soon(self, c: Committed) -> float | None:
        with self._lock:
            if c.version > self._published.get(c.table_id, -1) + 1:  # others commit to this table too
                return self._retry(c.table_id)
            return None if self._publish_in_turn(c) is None else self._later(c.table_id)

    def _retry(self, table_id: int) -> float | None:
        with self._lock:
            try:
                self._reconcile_table(table_id)
            except CatalogError as e:
                self._unknown(e)
            return self._later(table_id)

    def _later(self, table_id: int) -> float | None:
        """When to look after a table again, by this process's clock; None when there is no need, or no use."""
        try:
            if any(row[0] == table_id for row in self._catalog.rows("diverged")):
                return None
            due = [row[3] or now_ms() + SOON_MS for row in self._catalog.rows("pending") if row[0] == table_id]
        except CatalogError:
            due = [now_ms() + SOON_MS]
        return time.monotonic() + max(due[0] - now_ms(), 0) / 1000 * random.uniform(1, 1.2) if due else None

    # --- one table

    def _publish_in_turn(self, c: Committed) -> str | None:
        """Publish a commit that was made here, after what came before it; why it stopped."""
        try:
            newest = self._published.get(c.table_id, -1)
            if newest >= c.version:
                return None
            failure = self._publish_one(c) if c.version == newest + 1 else self._publish_behind_others(c)
            self._commits += 1
            if self._catalog.durable_marks or self._commits % MARK_EVERY == 0:
                self.flush()
        except CatalogError as e:
            return self._unknown(e)
        return failure

    def _publish_behind_others(self, c: Committed) -> str | None:
        """Others commit to this table too, and one of us publishes for all; if that takes long, everybody for himself."""
        until = time.monotonic() + PATIENCE
        while not leases.take(self._catalog, c.table_id, self._holder):
            if self._catalog.rows("is_published", table_id=c.table_id, version=c.version):
                self._published[c.table_id] = c.version
                return None
            if time.monotonic() > until:
                break
            time.sleep(leases.POLL)
        return self._publish_owed(c.table_id)[1]

    def _reconcile_table(self, table_id: int, patience: float = 0.0, most: int | None = None) -> tuple[int, str | None]:
        """(versions published, why it stopped) for what a table owes, or for the first of it. Without patience, what somebody
        else is at is left to him."""
        if not leases.take(self._catalog, table_id, self._holder, patience) and not patience:
            return 0, None
        return self._publish_owed(table_id, most)

    def _publish_owed(self, table_id: int, most: int | None = None) -> tuple[int, str | None]:
        """The same, oldest first, with the lease, which is given back."""
        self.flush()
        count, renewed, failure = 0, time.monotonic(), None
        try:
            if any(t == table_id for t, _ in self._catalog.rows("diverged")):
                return 0, self._divergence(table_id)
            for name, location, version, is_checkpoint, commit_ms in self._catalog.rows("owed", table_id=table_id)[:most]:
                if count and time.monotonic() > renewed + PATIENCE / 2:  # before those who wait give up waiting
                    self.flush()
                    leases.take(self._catalog, table_id, self._holder)
                    renewed = time.monotonic()
                place = storage.Root(location, self._catalog.access)
                failure = self._publish_one(Committed(table_id, name, place, version, commit_ms, bool(is_checkpoint), KINDS))
                if failure is not None:
                    break
                count += 1
        finally:
            self.flush()
            leases.release(self._catalog, table_id, self._holder)
        return count, failure

    def _publish_one(self, c: Committed) -> str | None:
        since = telemetry.clock()
        try:
            with telemetry.span("mirror", table=c.name, version=c.version):
                if not publish_commit(self._catalog, c):
                    reason = f"{names.commit_file(c.version)} holds another commit, of somebody else"
                    reason += f": lake.mirror.adopt({c.name!r}) takes it in"
                    return self._failed(c, "DIVERGED", reason)
                if c.is_checkpoint and (snapshot := self._snapshot(c)) is not None:
                    write_checkpoint(self._catalog, self._engine(), snapshot, c.commit_ms)
        except DeltaduckError as e:
            return self._failed(c, "PENDING", str(e))
        self._published[c.table_id] = self._catalog.unmarked[c.table_id] = c.version
        telemetry.took("mirror_latency_ms", since, catalog=self._catalog.name)
        return None

    def _snapshot(self, c: Committed) -> Snapshot | None:
        """The table at the version that was committed; None when it has been dropped since: its log is whole without a
        checkpoint."""
        head = snapshots.find(self._catalog, c.name)
        if head is None or head.table_id != c.table_id:  # another table has the name now
            return None
        return head if head.version == c.version else snapshots.find(self._catalog, c.name, c.version)

    def _failed(self, c: Committed, status: str, reason: str) -> str:
        message = f"table {c.name!r} version {c.version} is committed but not published at {c.location}: {reason}"
        way_out = "lake.mirror.reconcile() tries again" if status == "PENDING" else "nothing more of this table is published"
        fields = {"table": c.name, "version": c.version, "transaction_id": c.commit_id, "status": status}
        log.warning("%s; %s", message, way_out, extra=fields)
        telemetry.count("mirror_failures_total", catalog=self._catalog.name, table=c.name, status=status)
        self.flush()
        with self._catalog.transaction():
            self._catalog.run("mark_failed", table_id=c.table_id, version=c.version, status=status, error=reason, now_ms=now_ms())
        return message

    def _unknown(self, error: CatalogError) -> str:
        log.warning("%s: what was committed may not be published yet: lake.mirror.reconcile() tries again", error)
        return str(error)

    def _divergence(self, table_id: int) -> str:
        names = {row[1]: row[0] for row in self._catalog.rows("list_tables")}
        ((version,),) = [(v,) for t, v in self._catalog.rows("diverged") if t == table_id]
        return (
            f"table {names.get(table_id, table_id)!r}: somebody else wrote version {version} to its _delta_log; "
            "nothing is overwritten, and nothing after it is published: lake.mirror.adopt(table) takes it in"
        )
