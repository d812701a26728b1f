"""Publishing in version order, and making up for what went wrong."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any

from deltaduck import snapshot as snapshots
from deltaduck import storage
from deltaduck.catalog import Catalog
from deltaduck.catalog.base import now_ms
from deltaduck.commit import KINDS, Committed
from deltaduck.errors import CatalogError, DeltaduckError, MirrorError, TableNotFoundError
from deltaduck.listing import Listing, utc
from deltaduck.mirror import cleanup
from deltaduck.mirror.checkpoint import write_checkpoint
from deltaduck.mirror.export import export_log
from deltaduck.mirror.publish import publish_commit
from deltaduck.mirror.verify import Verification, verify_table
from deltaduck.protocol import log as names
from deltaduck.snapshot import Snapshot

log = logging.getLogger("deltaduck.mirror")


MARK_EVERY = 32  # commits between two marks, where no other process can look


class Mirror:
    """The mirror of one lake. A commit is durable before it is published; whatever is owed is in ``dl_mirror_status``."""

    def __init__(self, catalog: Catalog, engine: Callable[[], Any]) -> None:
        self._catalog = catalog
        self._engine = engine
        self._lock = threading.RLock()
        self._published: dict[int, int] = {}  # table_id -> newest version known to be in the mirror
        self._commits = 0

    def publish(self, committed: Sequence[Committed]) -> None:
        """Publish what was just committed. Never raises for a failure: it stays PENDING, is logged, and is retried later."""
        with self._lock:
            try:
                for c in committed:
                    if c.version and self._published.get(c.table_id) != c.version - 1:
                        self._reconcile_table(c.table_id)
                    else:
                        self._publish_one(c)
                self._commits += 1
                if self._catalog.durable_marks or self._commits % MARK_EVERY == 0:
                    self.flush()
            except CatalogError as e:
                log.warning("%s: what was committed may not be published yet: lake.mirror.reconcile() tries again", e)

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
                count, failure = self._reconcile_table(table_id)
                published += count
                failures += [failure] if failure else []
            self.flush()
            diverged = {row[0] for row in self._catalog.rows("diverged")}
            failures += [self._divergence(t) for t in sorted(diverged) if wanted in (None, t) and t not in owed]
        if failures:
            raise MirrorError("; ".join(failures))
        return published

    def status(self, table: str | None = None) -> Listing:
        """How far the mirror is, a row per live table, and what went wrong last."""
        with self._lock:
            self.flush()
        if table is not None:
            snapshots.load(self._catalog, table)
        columns = ["table", "version", "published_version", "pending", "diverged", "behind_since", "last_error"]
        rows = [(*r[:5], utc(r[5]), r[6]) for r in self._catalog.rows("mirror_state")]
        return Listing(columns, [r for r in rows if table is None or r[0].lower() == table.lower()])

    def checkpoint(self, table: str, version: int | None = None) -> None:
        """Publish what is owed for a table, and a checkpoint of its latest version, or of another. MirrorError."""
        self.reconcile(table)
        snapshot = snapshots.load(self._catalog, table, version)
        write_checkpoint(self._catalog, self._engine(), snapshot, snapshot.commit_ms)

    def verify(self, table: str) -> Verification:
        """Compare the published log of a table with the catalog: every JSON commit and the newest checkpoint."""
        with self._lock:
            self.flush()
        return verify_table(self._catalog, self._engine(), snapshots.load(self._catalog, table))

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

    def _reconcile_table(self, table_id: int) -> tuple[int, str | None]:
        """(versions published, why it stopped) for what a table owes, oldest first."""
        self.flush()
        if any(t == table_id for t, _ in self._catalog.rows("diverged")):
            return 0, self._divergence(table_id)
        count = 0
        for owed_id, name, location, version, is_checkpoint in self._catalog.rows("pending"):
            if owed_id == table_id:
                ((commit_ms,),) = self._catalog.rows("commit_time", table_id=table_id, version=version)
                place = storage.Root(location, self._catalog.access)
                if failure := self._publish_one(Committed(table_id, name, place, version, commit_ms, is_checkpoint, KINDS)):
                    return count, failure
                count += 1
        return count, None

    def _publish_one(self, c: Committed) -> str | None:
        try:
            if not publish_commit(self._catalog, c):
                return self._failed(c, "DIVERGED", f"{names.commit_file(c.version)} holds another commit")
            if c.is_checkpoint and (snapshot := self._snapshot(c)) is not None:
                write_checkpoint(self._catalog, self._engine(), snapshot, c.commit_ms)
        except DeltaduckError as e:
            return self._failed(c, "PENDING", str(e))
        self._published[c.table_id] = self._catalog.unmarked[c.table_id] = c.version
        return None

    def _snapshot(self, c: Committed) -> Snapshot | None:
        """The table at the version that was committed; None when it has been dropped since: its log is whole without a
        checkpoint."""
        try:
            head = snapshots.load(self._catalog, c.name)
            if head.table_id != c.table_id:  # another table has the name now
                return None
            return head if head.version == c.version else snapshots.load(self._catalog, c.name, c.version)
        except TableNotFoundError:
            return None

    def _failed(self, c: Committed, status: str, reason: str) -> str:
        message = f"table {c.name!r} version {c.version} is committed but not published at {c.location}: {reason}"
        way_out = "lake.mirror.reconcile() tries again" if status == "PENDING" else "nothing more of this table is published"
        log.warning("%s; %s", message, way_out)
        self.flush()
        with self._catalog.transaction():
            self._catalog.run("mark_failed", table_id=c.table_id, version=c.version, status=status, error=reason)
        return message

    def _divergence(self, table_id: int) -> str:
        names = {row[1]: row[0] for row in self._catalog.rows("list_tables")}
        ((version,),) = [(v,) for t, v in self._catalog.rows("diverged") if t == table_id]
        return (
            f"table {names.get(table_id, table_id)!r}: somebody else wrote version {version} to its _delta_log; "
            "nothing is overwritten, and nothing after it is published"
        )
