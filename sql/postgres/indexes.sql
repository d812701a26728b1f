-- name: index_dl_add_files_indexed
-- The files that a skip index picked: SQLite makes no use of it.
CREATE INDEX IF NOT EXISTS dl_add_files_by_index ON dl_add_files
    (table_id, coalesce(indexed_version, version), coalesce(indexed_action_order, action_order));
