-- name: first_conflict
-- The oldest commit after :read_version with which a commit that read nothing still cannot be reordered.
-- Of one commit's reasons, its schema or properties come before the protocol that these ask for.
SELECT version, reason FROM (
    SELECT version, 'its schema or properties were changed' AS reason
    FROM dl_metadata_updates WHERE table_id = :table_id AND version > :read_version
    UNION ALL
    SELECT version, 'its protocol was changed'
    FROM dl_protocol_updates WHERE table_id = :table_id AND version > :read_version
    UNION ALL
    SELECT version, 'the same application committed'
    FROM dl_txn_actions WHERE table_id = :table_id AND version > :read_version AND app_id = :app_id
) c
ORDER BY version, reason DESC LIMIT 1;

-- name: conflicting_own
-- The oldest commit that took out a file which this one takes out too. dl_staged_removes holds (version, action_order).
SELECT min(a.removed_version)
FROM dl_add_files a
JOIN dl_staged_removes s ON s.version = a.version AND s.action_order = a.action_order
WHERE a.table_id = :table_id AND a.removed_version IS NOT NULL;

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
-- Under WriteSerializable a blind append may be ordered before or after it, so it does not count.
SELECT min(a.version)
FROM dl_add_files a {skip_join}
JOIN dl_table_versions v ON v.table_id = a.table_id AND v.version = a.version
WHERE a.table_id = :table_id AND a.version > :read_version AND a.data_change
  AND (:serializable OR v.is_blind_append IS NOT TRUE) AND ({condition});
