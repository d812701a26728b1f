-- name: files_active
-- How many files each live table has.
SELECT t.table_name, count(a.path)
FROM dl_tables t
LEFT JOIN dl_add_files a ON a.table_id = t.table_id AND a.removed_version IS NULL
WHERE t.dropped_ms = 0
GROUP BY t.table_name;

-- name: mirror_lag
-- When the oldest version of each live table was committed that is not published.
SELECT table_name, behind_since_ms FROM dl_mirror_lag;
