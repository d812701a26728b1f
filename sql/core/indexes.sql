-- What SQLite and PostgreSQL would otherwise search from end to end. DuckDB does without: it skips blocks by their least and
-- greatest values, and an index would cost it twice the time of every insert.
-- name: index_dl_add_files
-- Snapshots, commits as JSON, and the files that a skip index picked.
CREATE INDEX IF NOT EXISTS dl_add_files_by_version ON dl_add_files (table_id, version, action_order);

-- name: index_dl_add_files_indexed
-- Those that it picked by the row of an add before.
CREATE INDEX IF NOT EXISTS dl_add_files_by_index_row ON dl_add_files (table_id, indexed_version, indexed_action_order)
    WHERE indexed_version IS NOT NULL;

-- name: index_dl_remove_files
-- Commits as JSON, and tombstones.
CREATE INDEX IF NOT EXISTS dl_remove_files_by_version ON dl_remove_files (table_id, version);

-- name: index_dl_metadata_updates
-- The metadata in force.
CREATE INDEX IF NOT EXISTS dl_metadata_updates_by_version ON dl_metadata_updates (table_id, version);

-- name: index_dl_protocol_updates
-- The protocol in force.
CREATE INDEX IF NOT EXISTS dl_protocol_updates_by_version ON dl_protocol_updates (table_id, version);

-- name: index_dl_txn_actions
-- What an application has committed.
CREATE INDEX IF NOT EXISTS dl_txn_actions_by_version ON dl_txn_actions (table_id, version);

-- name: index_dl_domain_metadata
-- Domains in force.
CREATE INDEX IF NOT EXISTS dl_domain_metadata_by_version ON dl_domain_metadata (table_id, version);

-- name: index_dl_cdc_files
-- Commits as JSON.
CREATE INDEX IF NOT EXISTS dl_cdc_files_by_version ON dl_cdc_files (table_id, version);

-- name: index_dl_mirror_status_pending
-- What is owed: a handful of rows, however long the history.
CREATE INDEX IF NOT EXISTS dl_mirror_status_pending ON dl_mirror_status (table_id, version) WHERE status = 'PENDING';

-- name: index_dl_mirror_status_diverged
-- What will not be published.
CREATE INDEX IF NOT EXISTS dl_mirror_status_diverged ON dl_mirror_status (table_id, version) WHERE status = 'DIVERGED';
