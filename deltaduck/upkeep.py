"""What ``DeltaTable`` does about its log and its files, with the ``deltalake`` package's names."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from deltaduck import skip_index
from deltaduck.mirror import manifest
from deltaduck.operations import given_files, restore, vacuum

if TYPE_CHECKING:
    from collections.abc import Callable

    from deltaduck.lake import Lake
    from deltaduck.snapshot import Snapshot


class Upkeep:
    """The methods of ``DeltaTable`` that no query needs."""

    name: str
    _lake: Lake
    _version: int | None
    _snapshot: Callable[[], Snapshot]
    _change: Callable[..., Any]

    def create_checkpoint(self) -> None:
        """Publish what is owed to the mirror, and a checkpoint of this version."""
        self._lake.require_writable()
        self._lake.mirror.checkpoint(self.name, self._version)

    def compact_logs(self, starting_version: int, ending_version: int) -> None:
        """Publish what is owed, and a file that readers may read instead of these commits, both included. MirrorError."""
        self._lake.require_writable()
        self._lake.mirror.reconcile(self.name)
        self._lake.mirror.compact(self.name, starting_version, ending_version)

    def cleanup_metadata(self) -> None:
        """Delete what the published log no longer needs, by ``delta.logRetentionDuration``. The catalog forgets nothing."""
        self._lake.require_writable()
        self._lake.mirror.clean_up(self.name)

    def generate(self) -> None:
        """Write ``_symlink_format_manifest``: the names of the live files, partition by partition, for engines that read those.

        It is as of now, and does not follow the table. UnsupportedFeatureError where rows are not simply those of the files.
        """
        self._lake.require_writable()
        s = self._snapshot()
        manifest.write(self._lake.con.cursor(), s, self._lake.visible(s))

    def vacuum(
        self, retention_hours: float | None = None, dry_run: bool = True, enforce_retention_duration: bool = True, *,
        commit_properties: Any = None, post_commithook_properties: Any = None, full: bool = False,
        keep_versions: list[int] | None = None,
    ) -> list[str]:  # fmt: skip
        """Delete, or only list, data files that no version within the retention needs: their paths in the table.

        retention_hours: unless told, ``delta.deletedFileRetentionDuration``, a week by default. full: look into the directory
        too, for what crashed writers left. keep_versions: versions that stay whole whatever their age. commit_properties,
        post_commithook_properties: accepted for the signature; nothing is committed.
        """
        return vacuum.vacuum(
            self._lake, self.name, retention_hours, dry_run=dry_run,
            enforce_retention_duration=enforce_retention_duration, full=full, keep_versions=keep_versions,
        )  # fmt: skip

    def restore(
        self, target: int | dt.datetime | dt.date | str, *, ignore_missing_files: bool = False,
        protocol_downgrade_allowed: bool = False, commit_properties: Any = None, post_commithook_properties: Any = None,
    ) -> dict[str, int]:  # fmt: skip
        """Make the table what it was at a version or time, in a new commit. StorageError lists files that are deleted."""
        with self._change(None, commit_properties, post_commithook_properties) as tx:
            return restore.restore(
                tx, self.name, target,
                ignore_missing_files=ignore_missing_files, protocol_downgrade_allowed=protocol_downgrade_allowed,
            )  # fmt: skip

    def repair(
        self, dry_run: bool = False, *, commit_properties: Any = None, post_commithook_properties: Any = None
    ) -> dict[str, Any]:
        """Take files out of the table, in a commit, that somebody deleted from its storage: ``dry_run`` and ``files_removed``.

        Their rows are lost; without it, whatever reads them fails. ``lake.fsck`` says more.
        """
        with self._change(None, commit_properties, post_commithook_properties) as tx:
            return {"dry_run": dry_run, "files_removed": given_files.take_out_missing(tx, self.name, dry_run=dry_run)}

    def create_write_transaction(
        self, actions: Sequence[Any], mode: str, schema: Any, partition_by: Sequence[str] | str | None = None,
        partition_filters: Any = None, *, commit_properties: Any = None, post_commithook_properties: Any = None,
    ) -> None:  # fmt: skip
        """Commit Parquet files that something else has written below the table, and take others out.

        actions: of ``AddAction`` and ``RemoveAction``, ours or the ``deltalake`` package's. mode: "append" or "overwrite", which
        takes out all files, or those of the partitions that partition_filters match. schema, partition_by: the table's own.
        Rows are read where the table has rules for them. SchemaMismatchError, ConstraintViolationError, StorageError.
        """
        with self._change(None, commit_properties, post_commithook_properties) as tx:
            given_files.commit(tx, self.name, actions, mode, schema, partition_by, partition_filters)

    def rebuild_index(self) -> int:
        """Derive the skip index anew from the log's statistics; how many files it has. It holds nothing that the log has not."""
        return skip_index.rebuild(self._lake.catalog, self._lake.con, self._snapshot())
