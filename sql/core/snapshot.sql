-- name: head
-- A live table by name, and the versions whose metadata and protocol are in force.
SELECT table_id, table_name, location, version, version AS latest, metadata_version, protocol_version, uniform_since,
       has_files, commit_ms
FROM dl_tables
WHERE name_key = :name_key AND dropped_ms = 0;

-- name: as_of
-- The same at an earlier version.
SELECT t.table_id, t.table_name, t.location, v.version, t.version AS latest,
       (SELECT max(version) FROM dl_metadata_updates WHERE table_id = t.table_id AND version <= :version) AS metadata_version,
       (SELECT max(version) FROM dl_protocol_updates WHERE table_id = t.table_id AND version <= :version) AS protocol_version,
       t.uniform_since, t.has_files, v.commit_ms
FROM dl_tables t
JOIN dl_table_versions v ON v.table_id = t.table_id AND v.version = :version
WHERE t.name_key = :name_key AND t.dropped_ms = 0;

-- name: schema_at
-- The schema that a version has.
SELECT schema_string FROM dl_metadata_updates WHERE table_id = :table_id AND version <= :version ORDER BY version DESC LIMIT 1;

-- name: schema_strings
-- Every schema that a table has had.
SELECT DISTINCT schema_string FROM dl_metadata_updates WHERE table_id = :table_id AND schema_string IS NOT NULL;

-- name: definition
-- Metadata and protocol: what never changes between two versions that have the same of both.
SELECT m.id, m.name, m.description, m.schema_string, m.partition_columns, m.configuration, m.created_time,
       p.min_reader_version, p.min_writer_version, p.reader_features, p.writer_features
FROM dl_metadata_updates m
JOIN dl_protocol_updates p ON p.table_id = m.table_id AND p.version = :protocol_version
WHERE m.table_id = :table_id AND m.version = :metadata_version;

-- name: version_at
-- The newest version committed at or before a time, and the time of the table's first one.
SELECT max(CASE WHEN v.commit_ms <= :at_ms THEN v.version END), min(v.commit_ms), min(v.version), max(v.version)
FROM dl_table_versions v
JOIN dl_tables t ON t.table_id = v.table_id
WHERE t.name_key = :name_key AND t.dropped_ms = 0;

-- name: version_from
-- The oldest version committed at or after a time.
SELECT min(v.version)
FROM dl_table_versions v
JOIN dl_tables t ON t.table_id = v.table_id
WHERE t.name_key = :name_key AND t.dropped_ms = 0 AND v.commit_ms >= :at_ms;

-- name: skip_columns
-- What the skip index of a table holds, in any order: sorting is the half of a first look-up.
SELECT ordinal, column_path, delta_type, is_partition FROM dl_skip_columns WHERE table_id = :table_id;

-- name: files
-- The files of a table at a version, in any order: most come as they were added, and to sort them costs a quarter more.
SELECT version, action_order, path, size, modification_time, partition_values, num_records, stats, tags, data_change, dv_id,
       dv_storage_type, dv_path_or_inline_dv, dv_offset, dv_size_in_bytes, dv_cardinality, base_row_id, default_row_commit_version,
       clustering_provider, indexed_version, indexed_action_order
FROM dl_add_files
WHERE table_id = :table_id AND version <= :version AND (removed_version IS NULL OR removed_version > :version);

-- name: files_of
-- The same, of those that the skip index does not rule out, which the query put in gives by version and action_order.
SELECT version, action_order, path, size, modification_time, partition_values, num_records, stats, tags, data_change, dv_id,
       dv_storage_type, dv_path_or_inline_dv, dv_offset, dv_size_in_bytes, dv_cardinality, base_row_id, default_row_commit_version,
       clustering_provider, indexed_version, indexed_action_order
FROM dl_add_files
WHERE table_id = :table_id AND version <= :version AND (removed_version IS NULL OR removed_version > :version)
  AND (version, action_order) IN ({keys});

-- name: keys_of_later_adds
-- The places of rows of the skip index, which the query put in gives, and those of later adds of the same files.
WITH kept AS ({keys})
SELECT version, action_order FROM kept
UNION ALL
SELECT a.version, a.action_order
FROM dl_add_files a
JOIN kept ON kept.version = a.indexed_version AND kept.action_order = a.indexed_action_order
WHERE a.table_id = :table_id AND a.indexed_version IS NOT NULL;

-- name: file_totals
-- How many files, bytes and rows a table has at a version.
SELECT count(*), coalesce(sum(size), 0), CASE WHEN count(*) = 0 THEN 0 ELSE sum(num_records - coalesce(dv_cardinality, 0)) END
FROM dl_add_files
WHERE table_id = :table_id AND version <= :version AND (removed_version IS NULL OR removed_version > :version);

-- name: history
-- Commits of a table above `above`, newest first.
SELECT version, commit_ms, commit_id, commit_info
FROM dl_table_versions
WHERE table_id = :table_id AND version <= :version AND version > :above
ORDER BY version DESC;

-- name: transaction_version
-- The highest version that an application has committed.
SELECT max(app_version) FROM dl_txn_actions WHERE table_id = :table_id AND app_id = :app_id;

-- name: forget_indexed
-- Adds that say of their row in the skip index what is not so: they are to have one of their own.
UPDATE dl_add_files SET indexed_version = NULL, indexed_action_order = NULL
WHERE table_id = :table_id AND (indexed_version IS NOT NULL OR indexed_action_order IS NOT NULL)
  AND NOT EXISTS (SELECT 1 FROM dl_add_files b
                  WHERE b.table_id = dl_add_files.table_id AND b.version = dl_add_files.indexed_version
                    AND b.action_order = dl_add_files.indexed_action_order AND b.path = dl_add_files.path
                    AND b.indexed_version IS NULL);

-- name: skip_sources
-- What the rows of the skip index are derived from, by their places: of adds a that are {kept}.
-- exact_max: no NaN hides above a float's maximum, which only our own writer promises.
SELECT coalesce(a.indexed_version, a.version) AS version, coalesce(a.indexed_action_order, a.action_order) AS action_order,
       a.num_records, a.stats, a.partition_values, coalesce(v.engine_info LIKE :ours, FALSE) AS exact_max
FROM dl_add_files a
JOIN dl_table_versions v ON v.table_id = a.table_id AND v.version = coalesce(a.indexed_version, a.version)
WHERE a.table_id = :table_id AND ({kept})
ORDER BY 1, 2;

-- name: oldest_commit
-- The first version whose own actions are known: an import may begin with a checkpoint.
SELECT min(v.version) FROM dl_table_versions v
WHERE v.table_id = :table_id
  AND NOT EXISTS (SELECT 1 FROM dl_mirror_status s WHERE s.table_id = v.table_id AND s.version = v.version AND s.status = 'CHECKPOINT');

-- name: cdc_files
-- The change data files of versions.
SELECT c.version AS commit_version, v.commit_ms, c.version, c.action_order, c.path, c.partition_values
FROM dl_cdc_files c
JOIN dl_table_versions v ON v.table_id = c.table_id AND v.version = c.version
WHERE c.table_id = :table_id AND c.version BETWEEN :first AND :last
ORDER BY c.version, c.action_order;

-- name: changed_files
-- The files that versions added and removed with their rows.
SELECT 'insert' AS change_type, v.version AS commit_version, v.commit_ms, a.version, a.action_order, a.path, a.partition_values,
       a.dv_id, a.dv_storage_type, a.dv_path_or_inline_dv, a.dv_offset, a.dv_size_in_bytes, a.dv_cardinality
FROM dl_add_files a
JOIN dl_table_versions v ON v.table_id = a.table_id AND v.version = a.version
WHERE a.table_id = :table_id AND a.version BETWEEN :first AND :last AND a.data_change
  AND (a.removed_version IS NULL OR a.removed_version > a.version)
UNION ALL
SELECT 'delete', v.version, v.commit_ms, a.version, a.action_order, a.path, a.partition_values,
       a.dv_id, a.dv_storage_type, a.dv_path_or_inline_dv, a.dv_offset, a.dv_size_in_bytes, a.dv_cardinality
FROM dl_add_files a
JOIN dl_table_versions v ON v.table_id = a.table_id AND v.version = a.removed_version
WHERE a.table_id = :table_id AND a.removed_version BETWEEN :first AND :last AND a.removed_version > a.version
  AND EXISTS (SELECT 1 FROM dl_remove_files r WHERE r.table_id = a.table_id AND r.version = a.removed_version
                AND r.path = a.path AND r.dv_id = a.dv_id AND r.data_change)
ORDER BY 2, 5;
