-- name: first_conflict
-- The oldest commit after :read_version with which a commit that read nothing still cannot be reordered.
-- Of one commit's reasons, its schema or properties come before the protocol that these ask for.
SELECT version, reason FROM (
    SELECT version, 'its schema or properties were changed' AS reason
    FROM dl_metadata_updates WHERE table_id = :table_id AND version > :read_version AND only_marks IS NOT TRUE
    UNION ALL
    SELECT version, 'its protocol was changed'
    FROM dl_protocol_updates WHERE table_id = :table_id AND version > :read_version
    UNION ALL
    SELECT version, 'the same application committed'
    FROM dl_txn_actions WHERE table_id = :table_id AND version > :read_version AND app_id = :app_id
) c
ORDER BY version, reason DESC LIMIT 1;

-- name: conflicting_own
-- Files that this commit takes out and others took out first, oldest first, and where each one came back under another deletion
-- vector (live_version is NULL where it did not). dl_staged_removes holds (version, action_order).
SELECT a.removed_version, a.version, a.action_order, a.path, a.num_records, a.dv_storage_type, a.dv_path_or_inline_dv,
       a.dv_offset, a.dv_size_in_bytes, a.dv_cardinality,
       l.version AS live_version, l.action_order AS live_action_order, l.dv_id AS live_dv_id,
       l.dv_storage_type AS live_dv_storage_type, l.dv_path_or_inline_dv AS live_dv_path_or_inline_dv, l.dv_offset AS live_dv_offset,
       l.dv_size_in_bytes AS live_dv_size_in_bytes, l.dv_cardinality AS live_dv_cardinality
FROM dl_add_files a
JOIN dl_staged_removes s ON s.version = a.version AND s.action_order = a.action_order
LEFT JOIN dl_add_files l ON l.table_id = a.table_id AND l.version >= a.removed_version AND l.path = a.path
                        AND l.removed_version IS NULL
WHERE a.table_id = :table_id AND a.removed_version IS NOT NULL
ORDER BY a.removed_version, a.path;

-- name: conflicting_remove
-- The oldest commit after :read_version that took rows out of a file which this one read. {condition} is on a (files) and s (skip index).
-- A file whose rows were only moved (dataChange is false) says now what it said then.
SELECT min(a.removed_version)
FROM dl_add_files a {skip_join}
JOIN dl_remove_files r ON r.table_id = a.table_id AND r.version = a.removed_version AND r.path = a.path AND r.dv_id = a.dv_id
WHERE a.table_id = :table_id AND a.version <= :read_version AND a.removed_version > :read_version AND r.data_change
  AND ({condition});

-- name: conflicting_add
-- The oldest commit after :read_version that added a file which this one should have read.
-- Under WriteSerializable a blind append may be ordered before or after it, so it does not count. Nor does a file that was there
-- and came back under a new deletion vector: it has no new rows.
SELECT min(a.version)
FROM dl_add_files a {skip_join}
JOIN dl_table_versions v ON v.table_id = a.table_id AND v.version = a.version
WHERE a.table_id = :table_id AND a.version > :read_version AND a.data_change
  AND (:serializable OR v.is_blind_append IS NOT TRUE)
  AND (a.dv_id = ''
       OR a.path NOT IN (SELECT path FROM dl_add_files
                         WHERE table_id = :table_id AND version <= :read_version AND removed_version > :read_version)
       OR (a.path, a.dv_id) IN (SELECT path, dv_id FROM dl_add_files WHERE table_id = :table_id AND version <= :read_version))
  AND ({condition});

-- name: vacuumed_file
-- One of the files in dl_staged_files (path, dv_id) that VACUUM has deleted, or is about to.
SELECT min(a.path) FROM dl_add_files a
JOIN dl_staged_files s ON s.path = a.path AND s.dv_id = a.dv_id
WHERE a.table_id = :table_id AND a.deleted_ms IS NOT NULL;
