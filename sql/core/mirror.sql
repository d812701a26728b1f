-- name: pending
-- Tables that owe something to the mirror: since when, and when their oldest is to be tried again.
SELECT s.table_id, min(s.version), min(v.commit_ms), max(s.next_attempt_ms)
FROM dl_mirror_status s
JOIN dl_table_versions v ON v.table_id = s.table_id AND v.version = s.version
WHERE s.status = 'PENDING'
GROUP BY s.table_id
ORDER BY s.table_id;

-- name: owed
-- What a table owes to the mirror, in the order it must be published.
SELECT t.table_name, t.location, s.version, s.is_checkpoint, v.commit_ms
FROM dl_mirror_status s
JOIN dl_tables t ON t.table_id = s.table_id
JOIN dl_table_versions v ON v.table_id = s.table_id AND v.version = s.version
WHERE s.table_id = :table_id AND s.status = 'PENDING'
ORDER BY s.version;

-- name: is_published
-- Has a version of a table reached the mirror?
SELECT 1 FROM dl_mirror_status WHERE table_id = :table_id AND version = :version AND status = 'SUCCESS';

-- name: diverged
-- Tables whose log somebody else has written to: nothing more is published there.
SELECT table_id, min(version) FROM dl_mirror_status WHERE status = 'DIVERGED' GROUP BY table_id;

-- name: mark_published
-- All versions of a table up to this one are in the mirror.
UPDATE dl_mirror_status SET status = 'SUCCESS', attempts = attempts + 1, last_error = NULL, next_attempt_ms = NULL,
    published_ms = :now_ms
WHERE table_id = :table_id AND version <= :version AND status = 'PENDING';

-- name: mark_failed
-- A publication did not succeed: it stays PENDING, or is DIVERGED for good. The pause doubles, up to five minutes.
UPDATE dl_mirror_status SET status = :status, attempts = attempts + 1, last_error = :error,
    next_attempt_ms = :now_ms + CASE WHEN attempts < 9 THEN 500 * (1 << CAST(attempts AS INTEGER)) ELSE 300000 END
WHERE table_id = :table_id AND version = :version;

-- name: mirror_state
-- One row per live table: how far the mirror is.
SELECT t.table_name, t.version,
       max(CASE WHEN s.status IN ('SUCCESS', 'CHECKPOINT') THEN s.version END),
       count(CASE WHEN s.status = 'PENDING' THEN 1 END),
       count(CASE WHEN s.status = 'DIVERGED' THEN 1 END),
       min(CASE WHEN s.status IN ('PENDING', 'DIVERGED') THEN v.commit_ms END),
       max(s.last_error), max(s.next_attempt_ms)
FROM dl_tables t
JOIN dl_mirror_status s ON s.table_id = t.table_id
JOIN dl_table_versions v ON v.table_id = s.table_id AND v.version = s.version
WHERE t.dropped_ms = 0
GROUP BY t.table_name, t.name_key, t.version
ORDER BY t.name_key;

-- name: mirrored_versions
-- Every version of a table, what is owed for it, and its time.
SELECT s.version, s.status, s.is_checkpoint, v.commit_ms
FROM dl_mirror_status s
JOIN dl_table_versions v ON v.table_id = s.table_id AND v.version = s.version
WHERE s.table_id = :table_id
ORDER BY s.version;

-- name: commit_time
-- When a version was committed.
SELECT commit_ms FROM dl_table_versions WHERE table_id = :table_id AND version = :version;

-- name: in_commit_timestamp
-- What a commit said of its time.
SELECT in_commit_timestamp FROM dl_table_versions WHERE table_id = :table_id AND version = :version;

-- name: checkpoint_kinds
-- Which kinds of action, beside adds, a checkpoint of a table may have to hold.
SELECT EXISTS (SELECT 1 FROM dl_remove_files WHERE table_id = :table_id),
       EXISTS (SELECT 1 FROM dl_txn_actions WHERE table_id = :table_id),
       EXISTS (SELECT 1 FROM dl_domain_metadata WHERE table_id = :table_id);

-- name: checkpoint_files
-- Live files at a version, as a checkpoint holds them, in any order.
SELECT version, action_order, path, partition_values, size, modification_time, stats, tags, dv_storage_type,
       dv_path_or_inline_dv, dv_offset, dv_size_in_bytes, dv_cardinality, base_row_id, default_row_commit_version,
       clustering_provider
FROM dl_add_files
WHERE table_id = :table_id AND version <= :version AND (removed_version IS NULL OR removed_version > :version);

-- name: checkpoint_removes
-- Tombstones younger than the retention: the last word on their file is a remove.
SELECT r.path, r.deletion_timestamp, r.extended_file_metadata, r.partition_values, r.size, r.dv_storage_type,
       r.dv_path_or_inline_dv, r.dv_offset, r.dv_size_in_bytes, r.dv_cardinality, r.base_row_id, r.default_row_commit_version
FROM dl_remove_files r
WHERE r.table_id = :table_id AND r.version <= :version AND coalesce(r.deletion_timestamp, 0) > :since_ms
  AND NOT EXISTS (SELECT 1 FROM dl_add_files a
                  WHERE a.table_id = r.table_id AND a.path = r.path AND a.dv_id = r.dv_id AND a.version >= r.version
                    AND a.version <= :version)
  AND NOT EXISTS (SELECT 1 FROM dl_remove_files later
                  WHERE later.table_id = r.table_id AND later.path = r.path AND later.dv_id = r.dv_id
                    AND later.version > r.version AND later.version <= :version)
ORDER BY r.version, r.action_order;

-- name: checkpoint_txns
-- The last version of each application.
SELECT app_id, max(app_version) AS app_version, max(last_updated) AS last_updated
FROM dl_txn_actions
WHERE table_id = :table_id AND version <= :version
GROUP BY app_id
ORDER BY app_id;

-- name: checkpoint_domains
-- Domains in force.
SELECT d.domain, d.configuration
FROM dl_domain_metadata d
WHERE d.table_id = :table_id AND NOT d.removed
  AND d.version = (SELECT max(version) FROM dl_domain_metadata WHERE table_id = :table_id AND domain = d.domain AND version <= :version)
ORDER BY d.domain;

-- name: take_lease
-- The right to publish a table for a while, unless somebody else has it. Only work is saved by it: two who publish at once write
-- the same bytes.
INSERT INTO dl_mirror_leases (table_id, holder, expires_ms) VALUES (:table_id, :holder, :expires_ms)
ON CONFLICT (table_id) DO UPDATE SET holder = excluded.holder, expires_ms = excluded.expires_ms
WHERE dl_mirror_leases.expires_ms < :now_ms OR dl_mirror_leases.holder = :holder;

-- name: release_lease
-- It is given back before its time.
UPDATE dl_mirror_leases SET expires_ms = 0 WHERE table_id = :table_id AND holder = :holder;

-- name: last_words
-- The actions of versions :first to :last that no later one of them overrules, as a log compaction holds them.
SELECT version, action_order FROM dl_add_files
WHERE table_id = :table_id AND version BETWEEN :first AND :last AND (removed_version IS NULL OR removed_version > :last)
UNION ALL
SELECT r.version, r.action_order FROM dl_remove_files r
WHERE r.table_id = :table_id AND r.version BETWEEN :first AND :last
  AND NOT EXISTS (SELECT 1 FROM dl_add_files a
                  WHERE a.table_id = r.table_id AND a.path = r.path AND a.dv_id = r.dv_id AND a.version >= r.version
                    AND a.version <= :last)
  AND NOT EXISTS (SELECT 1 FROM dl_remove_files later
                  WHERE later.table_id = r.table_id AND later.path = r.path AND later.dv_id = r.dv_id
                    AND later.version > r.version AND later.version <= :last)
UNION ALL
SELECT version, action_order FROM dl_metadata_updates m
WHERE table_id = :table_id AND version = (SELECT max(version) FROM dl_metadata_updates
                                          WHERE table_id = :table_id AND version BETWEEN :first AND :last)
UNION ALL
SELECT version, action_order FROM dl_protocol_updates p
WHERE table_id = :table_id AND version = (SELECT max(version) FROM dl_protocol_updates
                                          WHERE table_id = :table_id AND version BETWEEN :first AND :last)
UNION ALL
SELECT version, action_order FROM dl_txn_actions t
WHERE table_id = :table_id AND version = (SELECT max(version) FROM dl_txn_actions
                                          WHERE table_id = :table_id AND app_id = t.app_id AND version BETWEEN :first AND :last)
UNION ALL
SELECT version, action_order FROM dl_domain_metadata d
WHERE table_id = :table_id AND version = (SELECT max(version) FROM dl_domain_metadata
                                          WHERE table_id = :table_id AND domain = d.domain AND version BETWEEN :first AND :last);
