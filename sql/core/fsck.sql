-- What must be true of a catalog, whatever was committed. Each statement answers the places where it is not: table_id, version,
-- and a subject. deltaduck/operations/fsck.py says what each one means, and what to do.

-- name: fsck_version_gap
-- Versions rise by one: commits between two of them are lost.
SELECT table_id, version, 'after version ' || before AS subject
FROM (SELECT table_id, version, lag(version) OVER (PARTITION BY table_id ORDER BY version) AS before FROM dl_table_versions) v
WHERE version <> before + 1;

-- name: fsck_commit_time
-- Times rise strictly with the version: AT (TIMESTAMP => ...) would find the wrong one.
SELECT table_id, version, commit_ms || ' after ' || before AS subject
FROM (SELECT table_id, version, commit_ms, lag(commit_ms) OVER (PARTITION BY table_id ORDER BY version) AS before
      FROM dl_table_versions) v
WHERE commit_ms <= before;

-- name: fsck_lost_commit
-- The head is a commit that the catalog has.
SELECT t.table_id, t.version, 'newest commit: ' || coalesce(CAST(max(v.version) AS TEXT), 'none') AS subject
FROM dl_tables t
LEFT JOIN dl_table_versions v ON v.table_id = t.table_id
GROUP BY t.table_id, t.version
HAVING max(v.version) IS NULL OR max(v.version) < t.version;

-- name: fsck_definition
-- A table has a schema and a protocol.
SELECT table_id, version, 'no metaData' AS subject
FROM dl_tables t
WHERE NOT EXISTS (SELECT 1 FROM dl_metadata_updates m WHERE m.table_id = t.table_id)
UNION ALL
SELECT table_id, version, 'no protocol'
FROM dl_tables t
WHERE NOT EXISTS (SELECT 1 FROM dl_protocol_updates p WHERE p.table_id = t.table_id);

-- name: fsck_head
-- A table's row in dl_tables says what its log says: newest version and its time, metadata and protocol in force.
SELECT t.table_id, t.version,
       CASE WHEN t.version < v.version THEN 'version ' || v.version || ' is newer'
            WHEN t.commit_ms <> v.commit_ms THEN 'commit_ms ' || t.commit_ms
            WHEN t.metadata_version <> m.version THEN 'metadata_version ' || t.metadata_version
            ELSE 'protocol_version ' || t.protocol_version END AS subject
FROM dl_tables t
JOIN (SELECT table_id, max(version) AS version, max(commit_ms) AS commit_ms FROM dl_table_versions GROUP BY table_id) v
  ON v.table_id = t.table_id
JOIN (SELECT table_id, max(version) AS version FROM dl_metadata_updates GROUP BY table_id) m ON m.table_id = t.table_id
JOIN (SELECT table_id, max(version) AS version FROM dl_protocol_updates GROUP BY table_id) p ON p.table_id = t.table_id
WHERE t.version < v.version OR t.commit_ms <> v.commit_ms OR t.metadata_version <> m.version OR t.protocol_version <> p.version;

-- name: fsck_action_of_no_commit
-- Every action, and every end of a file, belongs to a commit.
SELECT table_id, version, kind AS subject
FROM (
    SELECT table_id, version, 'add' AS kind FROM dl_add_files
    UNION SELECT table_id, removed_version, 'end of a file' FROM dl_add_files WHERE removed_version IS NOT NULL
    UNION SELECT table_id, version, 'remove' FROM dl_remove_files
    UNION SELECT table_id, version, 'metaData' FROM dl_metadata_updates
    UNION SELECT table_id, version, 'protocol' FROM dl_protocol_updates
    UNION SELECT table_id, version, 'txn' FROM dl_txn_actions
    UNION SELECT table_id, version, 'domainMetadata' FROM dl_domain_metadata
    UNION SELECT table_id, version, 'cdc' FROM dl_cdc_files
    UNION SELECT table_id, version, 'other' FROM dl_other_actions
    UNION SELECT table_id, version, 'publication' FROM dl_mirror_status
) a
WHERE NOT EXISTS (SELECT 1 FROM dl_table_versions v WHERE v.table_id = a.table_id AND v.version = a.version);

-- name: fsck_commit_of_no_table
-- Every commit belongs to a table.
SELECT table_id, version, commit_id AS subject
FROM dl_table_versions v
WHERE NOT EXISTS (SELECT 1 FROM dl_tables t WHERE t.table_id = v.table_id);

-- name: fsck_same_place
-- Two actions never have the same place in a commit.
SELECT table_id, version, 'place ' || action_order AS subject
FROM (
    SELECT table_id, version, action_order FROM dl_add_files
    UNION ALL SELECT table_id, version, action_order FROM dl_remove_files
    UNION ALL SELECT table_id, version, action_order FROM dl_metadata_updates
    UNION ALL SELECT table_id, version, action_order FROM dl_protocol_updates
    UNION ALL SELECT table_id, version, action_order FROM dl_txn_actions
    UNION ALL SELECT table_id, version, action_order FROM dl_domain_metadata
    UNION ALL SELECT table_id, version, action_order FROM dl_cdc_files
    UNION ALL SELECT table_id, version, action_order FROM dl_other_actions
    UNION ALL SELECT table_id, version, action_order FROM dl_table_versions WHERE action_order IS NOT NULL
) a
GROUP BY table_id, version, action_order
HAVING count(*) > 1;

-- name: fsck_interval
-- A file goes after it came, and not before.
SELECT table_id, version, path AS subject FROM dl_add_files WHERE removed_version < version;

-- name: fsck_two_lives
-- A logical file, (path, deletion vector), lives once at a time: its rows would be read twice.
SELECT table_id, again AS version, path AS subject
FROM (SELECT table_id, path, removed_version,
             lead(version) OVER (PARTITION BY table_id, path, dv_id ORDER BY version, action_order) AS again
      FROM dl_add_files) a
WHERE again IS NOT NULL AND (removed_version IS NULL OR removed_version > again);

-- name: fsck_remove_without_end
-- What a commit of deltaduck's removes ends with it. Other writers may remove what is not there.
SELECT table_id, version, path AS subject
FROM (
    SELECT r.table_id, r.version, r.path, r.dv_id
    FROM dl_remove_files r
    JOIN dl_table_versions v ON v.table_id = r.table_id AND v.version = r.version
    WHERE v.engine_info LIKE 'deltaduck/%'
    EXCEPT
    SELECT table_id, removed_version, path, dv_id FROM dl_add_files WHERE removed_version IS NOT NULL
) r;

-- name: fsck_end_without_remove
-- What ends with a commit of deltaduck's, it removes or adds again: other readers of the log would still see the rows.
SELECT table_id, version, path AS subject
FROM (
    SELECT a.table_id, a.removed_version AS version, a.path, a.dv_id
    FROM dl_add_files a
    JOIN dl_table_versions v ON v.table_id = a.table_id AND v.version = a.removed_version
    WHERE v.engine_info LIKE 'deltaduck/%'
    EXCEPT
    SELECT table_id, version, path, dv_id FROM dl_remove_files
    EXCEPT
    SELECT table_id, version, path, dv_id FROM dl_add_files
) a;

-- name: fsck_indexed
-- What an add says of its row in the skip index is true: an add of the same file has it.
SELECT table_id, version, path AS subject
FROM dl_add_files a
WHERE (indexed_version IS NOT NULL OR indexed_action_order IS NOT NULL)
  AND NOT EXISTS (SELECT 1 FROM dl_add_files b
                  WHERE b.table_id = a.table_id AND b.version = a.indexed_version AND b.action_order = a.indexed_action_order
                    AND b.path = a.path AND b.indexed_version IS NULL);

-- name: fsck_counts
-- Sizes and counts of rows are such.
SELECT table_id, version, path AS subject
FROM dl_add_files
WHERE size < 0 OR num_records < 0 OR dv_cardinality < 0 OR dv_cardinality > num_records;

-- name: fsck_shared_location
-- A place belongs to one table.
SELECT t.table_id, t.version, other.table_name AS subject
FROM dl_tables t
JOIN dl_tables other ON other.location = t.location AND other.table_id <> t.table_id
WHERE t.dropped_ms = 0 AND other.dropped_ms = 0;

-- name: fsck_not_owed
-- Every commit is owed to the mirror, or has been published.
SELECT table_id, version, 'no row in dl_mirror_status' AS subject
FROM dl_table_versions v
WHERE NOT EXISTS (SELECT 1 FROM dl_mirror_status s WHERE s.table_id = v.table_id AND s.version = v.version);

-- name: fsck_tables
-- Every live table, whatever is wrong with it.
SELECT table_id, table_name FROM dl_tables WHERE dropped_ms = 0 ORDER BY name_key;

-- name: fsck_files
-- The files that versions of a table need, for a comparison with what is in storage. A vector's file may hold many: its size is not
-- said.
SELECT path, max(size) AS size, min(version) AS version, max(CASE WHEN removed_version IS NULL THEN 1 ELSE 0 END) AS live
FROM dl_add_files
WHERE table_id = :table_id AND deleted_ms IS NULL
GROUP BY path
UNION ALL
SELECT path, size, version, 0 FROM dl_cdc_files WHERE table_id = :table_id AND deleted_ms IS NULL
UNION ALL
SELECT dv_path_or_inline_dv, NULL, min(version), max(CASE WHEN removed_version IS NULL THEN 1 ELSE 0 END)
FROM dl_add_files
WHERE table_id = :table_id AND deleted_ms IS NULL AND dv_storage_type = 'p'
GROUP BY dv_path_or_inline_dv;

-- name: fsck_vectors
-- The files of deletion vectors whose names are encoded: 20 characters are a UUID, those before it a directory.
SELECT substr(dv_path_or_inline_dv, 1, length(dv_path_or_inline_dv) - 20) AS directory,
       substr(dv_path_or_inline_dv, length(dv_path_or_inline_dv) - 19) AS id, min(version) AS version,
       max(CASE WHEN removed_version IS NULL THEN 1 ELSE 0 END) AS live
FROM dl_add_files
WHERE table_id = :table_id AND deleted_ms IS NULL AND dv_storage_type = 'u'
GROUP BY dv_path_or_inline_dv;

-- name: fsck_set_head
-- The row of a table, as its log has it. No file is known any more to have exactly today's columns: reading asks each.
UPDATE dl_tables SET
    version = (SELECT max(v.version) FROM dl_table_versions v WHERE v.table_id = dl_tables.table_id),
    commit_ms = (SELECT max(v.commit_ms) FROM dl_table_versions v WHERE v.table_id = dl_tables.table_id),
    metadata_version = (SELECT max(m.version) FROM dl_metadata_updates m WHERE m.table_id = dl_tables.table_id),
    protocol_version = (SELECT max(p.version) FROM dl_protocol_updates p WHERE p.table_id = dl_tables.table_id),
    uniform_since = (SELECT max(v.version) + 1 FROM dl_table_versions v WHERE v.table_id = dl_tables.table_id),
    has_files = EXISTS (SELECT 1 FROM dl_add_files a WHERE a.table_id = dl_tables.table_id)
WHERE table_id = :table_id;

-- name: fsck_owe
-- Commits that the mirror was never told of.
INSERT INTO dl_mirror_status (table_id, version, status, is_checkpoint, attempts)
SELECT table_id, version, 'PENDING', FALSE, 0
FROM dl_table_versions v
WHERE v.table_id = :table_id
  AND NOT EXISTS (SELECT 1 FROM dl_mirror_status s WHERE s.table_id = v.table_id AND s.version = v.version);
