-- name: view_dl_live_files
-- The files that make up every live table now.
CREATE VIEW dl_live_files AS
SELECT t.table_name, a.table_id, a.path, a.size, a.num_records, a.partition_values, a.modification_time,
       a.version AS added_version, a.stats, a.dv_id
FROM dl_add_files a
JOIN dl_tables t ON t.table_id = a.table_id
WHERE a.removed_version IS NULL AND t.dropped_ms = 0;

-- name: view_dl_history
-- Every commit of every table, the way DESCRIBE HISTORY tells it.
CREATE VIEW dl_history AS
SELECT t.table_name, v.version, v.commit_ms, v.operation, v.operation_parameters, v.operation_metrics, v.read_version,
       v.isolation_level, v.is_blind_append, v.engine_info, v.user_name, v.user_metadata, v.commit_id
FROM dl_table_versions v
JOIN dl_tables t ON t.table_id = v.table_id;

-- name: view_dl_transactions
-- Commits across tables: one row per commit and table, tables of one transaction share commit_id.
CREATE VIEW dl_transactions AS
SELECT v.commit_id, v.commit_ms, t.table_name, v.version, v.operation, v.user_name, v.engine_info, v.user_metadata,
       count(*) OVER (PARTITION BY v.commit_id) AS tables_in_commit
FROM dl_table_versions v
JOIN dl_tables t ON t.table_id = v.table_id;

-- name: view_dl_audit
-- Who did what, when, to which table, and how much: one row per commit and table, and one per table that was dropped.
CREATE VIEW dl_audit AS
SELECT v.commit_ms, v.user_name, v.user_id, v.engine_info, v.operation, t.table_name, v.version, v.commit_id,
       count(*) OVER (PARTITION BY v.commit_id) AS tables_in_commit, v.operation_parameters, v.user_metadata,
       CAST(coalesce(a.files, 0) AS BIGINT) AS files_added, CAST(coalesce(r.files, 0) AS BIGINT) AS files_removed,
       CAST(coalesce(a.num_rows, 0) AS BIGINT) AS rows_added, CAST(coalesce(r.num_rows, 0) AS BIGINT) AS rows_removed,
       CAST(coalesce(a.bytes, 0) AS BIGINT) AS bytes_added, CAST(coalesce(r.bytes, 0) AS BIGINT) AS bytes_removed,
       m.version IS NOT NULL AS changes_metadata, p.version IS NOT NULL AS changes_protocol
FROM dl_table_versions v
JOIN dl_tables t ON t.table_id = v.table_id
LEFT JOIN (SELECT table_id, version, count(*) AS files, sum(num_records - coalesce(dv_cardinality, 0)) AS num_rows, sum(size) AS bytes
           FROM dl_add_files GROUP BY table_id, version) a ON a.table_id = v.table_id AND a.version = v.version
LEFT JOIN (SELECT table_id, removed_version AS version, count(*) AS files,
                  sum(num_records - coalesce(dv_cardinality, 0)) AS num_rows, sum(size) AS bytes
           FROM dl_add_files WHERE removed_version IS NOT NULL GROUP BY table_id, removed_version) r
  ON r.table_id = v.table_id AND r.version = v.version
LEFT JOIN dl_metadata_updates m ON m.table_id = v.table_id AND m.version = v.version
LEFT JOIN dl_protocol_updates p ON p.table_id = v.table_id AND p.version = v.version
UNION ALL
SELECT dropped_ms, NULL, NULL, NULL, 'DROP TABLE', table_name, NULL, NULL, 1, NULL, NULL, 0, 0, 0, 0, 0, 0, FALSE, FALSE
FROM dl_tables
WHERE dropped_ms <> 0;

-- name: view_dl_file_lifetimes
-- When each file came, when it went, and why.
CREATE VIEW dl_file_lifetimes AS
SELECT t.table_name, a.path, a.size, a.num_records, a.version AS added_version, born.commit_ms AS added_ms,
       born.operation AS added_by, a.removed_version, gone.commit_ms AS removed_ms, gone.operation AS removed_by
FROM dl_add_files a
JOIN dl_tables t ON t.table_id = a.table_id
JOIN dl_table_versions born ON born.table_id = a.table_id AND born.version = a.version
LEFT JOIN dl_table_versions gone ON gone.table_id = a.table_id AND gone.version = a.removed_version;

-- name: view_dl_storage_growth
-- Per version: files and bytes added and removed, and the running totals of what is live.
CREATE VIEW dl_storage_growth AS
SELECT t.table_name, c.version, v.commit_ms, c.files_added, c.files_removed, c.bytes_added, c.bytes_removed,
       sum(c.files_added - c.files_removed) OVER w AS live_files,
       sum(c.bytes_added - c.bytes_removed) OVER w AS live_bytes
FROM (
    SELECT table_id, version, sum(files_added) AS files_added, sum(files_removed) AS files_removed,
           sum(bytes_added) AS bytes_added, sum(bytes_removed) AS bytes_removed
    FROM (
        SELECT table_id, version, count(*) AS files_added, 0 AS files_removed, sum(size) AS bytes_added, 0 AS bytes_removed
        FROM dl_add_files GROUP BY table_id, version
        UNION ALL
        SELECT table_id, removed_version, 0, count(*), 0, sum(size)
        FROM dl_add_files WHERE removed_version IS NOT NULL GROUP BY table_id, removed_version
        UNION ALL
        SELECT table_id, version, 0, 0, 0, 0 FROM dl_table_versions
    ) u
    GROUP BY table_id, version
) c
JOIN dl_tables t ON t.table_id = c.table_id
JOIN dl_table_versions v ON v.table_id = c.table_id AND v.version = c.version
WINDOW w AS (PARTITION BY c.table_id ORDER BY c.version);

-- name: view_dl_mirror_lag
-- Per live table: the newest published version, how many wait, and since when.
CREATE VIEW dl_mirror_lag AS
SELECT t.table_name, t.version, max(CASE WHEN s.status IN ('SUCCESS', 'CHECKPOINT') THEN s.version END) AS published_version,
       count(CASE WHEN s.status IN ('PENDING', 'DIVERGED') THEN 1 END) AS versions_behind,
       min(CASE WHEN s.status IN ('PENDING', 'DIVERGED') THEN v.commit_ms END) AS behind_since_ms
FROM dl_tables t
JOIN dl_mirror_status s ON s.table_id = t.table_id
JOIN dl_table_versions v ON v.table_id = s.table_id AND v.version = s.version
WHERE t.dropped_ms = 0
GROUP BY t.table_name, t.version;
