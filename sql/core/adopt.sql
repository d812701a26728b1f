-- Commits that somebody else wrote take the numbers of ours that were not published; ours follow them.

-- name: file_keys_at
-- What makes each file that lived at a version.
SELECT version, action_order, path, dv_id FROM dl_add_files
WHERE table_id = :table_id AND version <= :version AND (removed_version IS NULL OR removed_version > :version);

-- name: unpublished_commits
-- Ours, and what they say of themselves.
SELECT version, commit_ms, read_version, commit_info FROM dl_table_versions
WHERE table_id = :table_id AND version >= :first
ORDER BY version;

-- name: aside
-- Numbers go below zero first: a key may be taken until all have moved. {table} is one of the log's.
UPDATE {table} SET version = -version - :shift WHERE table_id = :table_id AND version >= :first;

-- name: aside_skip
-- The same of a skip index.
UPDATE dl_skip_{table_id} SET version = -version - :shift WHERE version >= :first;

-- name: behind
-- And then to where they stay.
UPDATE {table} SET version = -version WHERE table_id = :table_id AND version < 0;

-- name: behind_skip
-- The same of a skip index.
UPDATE dl_skip_{table_id} SET version = -version WHERE version < 0;

-- name: shift_indexed
-- Where the skip index has files that were added again.
UPDATE dl_add_files SET indexed_version = indexed_version + :shift WHERE table_id = :table_id AND indexed_version >= :first;

-- name: shift_ends
-- Where lives of files ended.
UPDATE dl_add_files SET removed_version = removed_version + :shift WHERE table_id = :table_id AND removed_version >= :first;

-- name: move_commit
-- What a commit says of itself and of others, by their new numbers; and its time, which rises with the version.
UPDATE dl_table_versions SET commit_ms = :commit_ms, read_version = :read_version, commit_info = :commit_info,
    in_commit_timestamp = in_commit_timestamp + :later
WHERE table_id = :table_id AND version = :version;

-- name: owe_again
-- They are owed to the mirror under their new numbers.
UPDATE dl_mirror_status SET status = 'PENDING', attempts = 0, last_error = NULL, next_attempt_ms = NULL
WHERE table_id = :table_id AND version >= :version;

-- name: set_version
-- Where a table is, inside the transaction that holds its row.
UPDATE dl_tables SET version = :version, commit_ms = :commit_ms WHERE table_id = :table_id;

-- name: ends_twice
-- Files that both took out. dl_staged_ends holds theirs.
SELECT min(a.path) FROM dl_add_files a
JOIN dl_staged_ends e ON e.version = a.version AND e.action_order = a.action_order
WHERE a.table_id = :table_id AND a.removed_version IS NOT NULL;

-- name: adoption_conflict
-- Why ours (from :ours on) cannot follow theirs (from :theirs to there), which they did not see; nothing where they can.
-- What ours read is not on record: one that is no blind append may have read any row.
SELECT version, reason FROM (
    SELECT version, 'changes its schema or properties' AS reason FROM dl_metadata_updates
    WHERE table_id = :table_id AND version >= :theirs
    UNION ALL
    SELECT version, 'changes its protocol' FROM dl_protocol_updates WHERE table_id = :table_id AND version >= :theirs
    UNION ALL
    SELECT o.version, 'is by an application that is on both sides' FROM dl_txn_actions o
    JOIN dl_txn_actions t ON t.table_id = o.table_id AND t.app_id = o.app_id AND t.version >= :theirs AND t.version < :ours
    WHERE o.table_id = :table_id AND o.version >= :ours
    UNION ALL
    SELECT o.version, 'is on a domain of metadata that is on both sides' FROM dl_domain_metadata o
    JOIN dl_domain_metadata t ON t.table_id = o.table_id AND t.domain = o.domain AND t.version >= :theirs AND t.version < :ours
    WHERE o.table_id = :table_id AND o.version >= :ours
    UNION ALL
    SELECT o.version, 'read rows, and others were changed meanwhile' FROM dl_table_versions o
    WHERE o.table_id = :table_id AND o.version >= :ours AND o.is_blind_append IS NOT TRUE
      AND (EXISTS (SELECT 1 FROM dl_remove_files r WHERE r.table_id = o.table_id AND r.version = o.version AND r.data_change)
        OR EXISTS (SELECT 1 FROM dl_add_files a WHERE a.table_id = o.table_id AND a.version = o.version AND a.data_change))
      AND (EXISTS (SELECT 1 FROM dl_remove_files r
                   WHERE r.table_id = o.table_id AND r.version >= :theirs AND r.version < :ours AND r.data_change)
        OR :serializable AND EXISTS (SELECT 1 FROM dl_add_files a
                   WHERE a.table_id = o.table_id AND a.version >= :theirs AND a.version < :ours AND a.data_change))
) c
ORDER BY version, reason LIMIT 1;

-- name: restate_metadata
-- The metadata in force, said again: who read the table under the old numbers conflicts with that.
INSERT INTO dl_metadata_updates (table_id, version, action_order, id, name, description, format_provider, format_options,
    schema_string, partition_columns, created_time, configuration, extra)
SELECT table_id, :version, 2, id, name, description, format_provider, format_options, schema_string, partition_columns,
    created_time, configuration, extra
FROM dl_metadata_updates WHERE table_id = :table_id AND version = :metadata_version;

-- name: restated
-- That version's metadata is in force.
UPDATE dl_tables SET metadata_version = :version WHERE table_id = :table_id;
