-- name: insert_lake
-- The one row that says what this catalog is.
INSERT INTO dl_lake (schema_version, lake_id, storage, created_ms)
VALUES (:schema_version, :lake_id, :storage, :now_ms);

-- name: read_lake
-- How far the schema is, and where new tables go.
SELECT schema_version, storage FROM dl_lake;

-- name: set_schema_version
-- After forward migrations.
UPDATE dl_lake SET schema_version = :schema_version;

-- name: list_tables
-- Every live table: name, id, version, location, time and operation of the last commit.
SELECT t.table_name, t.table_id, t.version, t.location, t.commit_ms, v.operation
FROM dl_tables t
JOIN dl_table_versions v ON v.table_id = t.table_id AND v.version = t.version
WHERE t.dropped_ms = 0
ORDER BY t.name_key;

-- name: table_versions
-- The point in time that a transaction starts from: version of every live table.
SELECT table_id, version FROM dl_tables WHERE dropped_ms = 0;

-- name: lock_catalog
-- Before the catalog is made or migrated: the write transactions of DuckDB and SQLite exclude each other already.
SELECT 1;
