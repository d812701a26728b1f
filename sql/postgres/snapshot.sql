-- name: files_of
-- PostgreSQL takes a tenth of the files for what any predicate leaves and would read them all: look them up one by one.
SELECT a.version, a.action_order, a.path, a.size, a.modification_time, a.partition_values, a.num_records, a.stats, a.tags,
       a.data_change, a.dv_id, a.dv_storage_type, a.dv_path_or_inline_dv, a.dv_offset, a.dv_size_in_bytes, a.dv_cardinality,
       a.base_row_id, a.default_row_commit_version, a.clustering_provider, a.indexed_version, a.indexed_action_order
FROM ({keys}) k
CROSS JOIN LATERAL (
    SELECT * FROM dl_add_files
    WHERE table_id = :table_id AND version = k.version AND action_order = k.action_order
      AND version <= :version AND (removed_version IS NULL OR removed_version > :version)
    LIMIT 1
) a;

-- name: keys_of_later_adds
-- One by one too.
WITH kept AS ({keys})
SELECT version, action_order FROM kept
UNION ALL
SELECT a.version, a.action_order
FROM kept
CROSS JOIN LATERAL (
    SELECT version, action_order FROM dl_add_files
    WHERE table_id = :table_id AND indexed_version = kept.version AND indexed_action_order = kept.action_order
    OFFSET 0
) a;
