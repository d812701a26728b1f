-- name: deleted_paths
-- Files of a version that VACUUM has deleted.
SELECT path
FROM dl_add_files
WHERE table_id = :table_id AND version <= :version AND (removed_version IS NULL OR removed_version > :version)
  AND deleted_ms IS NOT NULL;

-- name: first_whole_version
-- The oldest version that has all its files.
SELECT coalesce(max(removed_version), 0) FROM dl_add_files WHERE table_id = :table_id AND deleted_ms IS NOT NULL;

-- name: vacuum_candidates
-- Files that no version since :before_ms needs and that are not deleted yet. {kept} is true of files that stay whatever their age.
SELECT DISTINCT a.path
FROM dl_add_files a
JOIN dl_table_versions g ON g.table_id = a.table_id AND g.version = a.removed_version
WHERE a.table_id = :table_id AND a.deleted_ms IS NULL AND g.commit_ms < :before_ms
  AND a.path NOT IN (
      SELECT b.path
      FROM dl_add_files b
      LEFT JOIN dl_table_versions h ON h.table_id = b.table_id AND h.version = b.removed_version
      WHERE b.table_id = :table_id AND (b.removed_version IS NULL OR h.commit_ms >= :before_ms OR {kept})
  )
UNION ALL
SELECT c.path
FROM dl_cdc_files c
JOIN dl_table_versions g ON g.table_id = c.table_id AND g.version = c.version
WHERE c.table_id = :table_id AND c.deleted_ms IS NULL AND g.commit_ms < :before_ms;

-- name: vacuum_vectors
-- The same of deletion vectors' files, which say nothing of the data files' lives: a file stays when another vector takes over.
SELECT DISTINCT a.dv_path_or_inline_dv
FROM dl_add_files a
JOIN dl_table_versions g ON g.table_id = a.table_id AND g.version = a.removed_version
WHERE a.table_id = :table_id AND a.deleted_ms IS NULL AND a.dv_storage_type = 'u' AND g.commit_ms < :before_ms
  AND a.dv_path_or_inline_dv NOT IN (
      SELECT b.dv_path_or_inline_dv
      FROM dl_add_files b
      LEFT JOIN dl_table_versions h ON h.table_id = b.table_id AND h.version = b.removed_version
      WHERE b.table_id = :table_id AND b.dv_storage_type = 'u'
        AND (b.removed_version IS NULL OR h.commit_ms >= :before_ms OR {kept})
  );

-- name: known_paths
-- Every file that the table has not deleted: data files of all versions, and change files.
SELECT DISTINCT path FROM dl_add_files WHERE table_id = :table_id AND deleted_ms IS NULL
UNION
SELECT path FROM dl_cdc_files WHERE table_id = :table_id AND deleted_ms IS NULL;

-- name: known_vectors
-- The deletion vectors' files of the same.
SELECT DISTINCT dv_storage_type, dv_path_or_inline_dv FROM dl_add_files
WHERE table_id = :table_id AND deleted_ms IS NULL AND dv_storage_type IN ('u', 'p');

-- name: borrowed_paths
-- Files that other live tables of the lake, shallow clones, hold by their absolute names, and their deletion vectors.
SELECT DISTINCT b.path
FROM dl_add_files b
JOIN dl_tables t ON t.table_id = b.table_id
WHERE t.dropped_ms = 0 AND b.table_id <> :table_id AND b.deleted_ms IS NULL
  AND (substr(b.path, 1, 1) = '/' OR substr(b.path, 1, 6) = 'file:/' OR b.path LIKE '%://%')
UNION
SELECT DISTINCT b.dv_path_or_inline_dv
FROM dl_add_files b
JOIN dl_tables t ON t.table_id = b.table_id
WHERE t.dropped_ms = 0 AND b.table_id <> :table_id AND b.deleted_ms IS NULL AND b.dv_storage_type = 'p';

-- name: mark_deleted_files
-- VACUUM has deleted these.
UPDATE dl_add_files SET deleted_ms = :now_ms
WHERE table_id = :table_id AND deleted_ms IS NULL AND path IN (SELECT path FROM dl_staged_paths);

-- name: mark_deleted_vectors
-- The same of deletion vectors' files: no version with such a vector can be read any more.
UPDATE dl_add_files SET deleted_ms = :now_ms
WHERE table_id = :table_id AND deleted_ms IS NULL AND dv_storage_type = 'u'
  AND dv_path_or_inline_dv IN (SELECT path FROM dl_staged_paths);

-- name: mark_deleted_changes
-- And of change files.
UPDATE dl_cdc_files SET deleted_ms = :now_ms
WHERE table_id = :table_id AND deleted_ms IS NULL AND path IN (SELECT path FROM dl_staged_paths);

-- name: version_files
-- The files of a version with all that their adds say, and {index}: the columns of the skip index under the names they get.
-- In any order: sorting costs as much again.
SELECT a.version, a.action_order, a.path, a.partition_values, a.size, a.modification_time, a.data_change, a.stats, a.num_records,
       a.tags, a.dv_id, a.dv_storage_type, a.dv_path_or_inline_dv, a.dv_offset, a.dv_size_in_bytes, a.dv_cardinality,
       a.base_row_id, a.default_row_commit_version, a.clustering_provider, a.deleted_ms{index}
FROM dl_add_files a
LEFT JOIN dl_skip_{source_id} s ON s.version = coalesce(a.indexed_version, a.version)
                                AND s.action_order = coalesce(a.indexed_action_order, a.action_order)
WHERE a.table_id = :table_id AND a.version <= :version AND (a.removed_version IS NULL OR a.removed_version > :version);

-- name: expired_base
-- The newest published checkpoint that is older than the log's retention: what comes before it, nobody needs.
SELECT max(s.version)
FROM dl_mirror_status s
JOIN dl_table_versions v ON v.table_id = s.table_id AND v.version = s.version
WHERE s.table_id = :table_id AND s.is_checkpoint AND s.status = 'SUCCESS' AND v.commit_ms <= :before_ms;

-- name: published_before
-- The versions before another one whose files are in the mirror.
SELECT version, is_checkpoint FROM dl_mirror_status
WHERE table_id = :table_id AND version < :version AND status = 'SUCCESS' ORDER BY version;

-- name: mark_expired
-- Their files are taken out of the mirror.
UPDATE dl_mirror_status SET status = 'EXPIRED' WHERE table_id = :table_id AND version < :version AND status = 'SUCCESS';
