-- name: advance_table
-- Lock a table's row and move it to its next version, if it is still at the one expected: no row changes if it is not.
UPDATE dl_tables SET version = :version, commit_ms = :commit_ms
WHERE table_id = :table_id AND version = :expected AND dropped_ms = 0;

-- name: redefine_table
-- What else a commit changed: which versions' metadata and protocol are in force, which files have the current schema.
-- What the statement head says of the table then.
UPDATE dl_tables SET metadata_version = CASE WHEN :new_metadata THEN version ELSE metadata_version END,
    protocol_version = CASE WHEN :new_protocol THEN version ELSE protocol_version END,
    uniform_since = CASE WHEN :foreign_files THEN version + 1 WHEN :new_layout THEN version ELSE uniform_since END,
    has_files = has_files OR :adds
WHERE table_id = :table_id
RETURNING table_id, table_name, location, version, version AS latest, metadata_version, protocol_version, uniform_since,
    has_files, commit_ms;

-- name: table_state
-- Where a table is, inside the transaction that wants to change it.
SELECT version, dropped_ms, commit_ms FROM dl_tables WHERE table_id = :table_id;

-- name: set_commit_time
-- All tables of one commit have one time.
UPDATE dl_tables SET commit_ms = :commit_ms WHERE table_id = :table_id;

-- name: lock_table_ids
-- Before an id is taken: the write transactions of DuckDB and SQLite exclude each other already.
SELECT 1;

-- name: next_table_id
-- Ids are never reused: tables are never deleted from the catalog.
SELECT coalesce(max(table_id), 0) + 1 FROM dl_tables;

-- name: location_taken
-- Has any table, live or dropped, ever been at this place?
SELECT count(*) FROM dl_tables WHERE location = :location;

-- name: insert_table
-- A new table, before its version 0.
INSERT INTO dl_tables (table_id, table_name, name_key, location, version, commit_ms, metadata_version, protocol_version,
    uniform_since, has_files, created_ms)
VALUES (:table_id, :table_name, :name_key, :location, -1, :now_ms, -1, -1, 0, FALSE, :now_ms);

-- name: drop_table
-- The name is free again; log and files stay.
UPDATE dl_tables SET dropped_ms = :now_ms WHERE table_id = :table_id;

-- name: rename_table
-- Another name for the same table.
UPDATE dl_tables SET table_name = :table_name, name_key = :name_key WHERE table_id = :table_id;

-- name: insert_version
-- The commit itself; its primary key lets one committer have a version.
INSERT INTO dl_table_versions (table_id, version, commit_ms, commit_id, read_version, action_order, commit_info, timestamp,
    in_commit_timestamp, operation, operation_parameters, operation_metrics, isolation_level, is_blind_append, engine_info, txn_id, user_name, user_metadata)
VALUES (:table_id, :version, :commit_ms, :commit_id, :read_version, 0, :commit_info, :commit_ms,
    :in_commit_timestamp, :operation, :operation_parameters, :operation_metrics, :isolation_level, :is_blind_append, :engine_info, :commit_id, :user_name, :user_metadata);

-- name: insert_metadata
-- A metaData action.
INSERT INTO dl_metadata_updates (table_id, version, action_order, id, name, description, format_provider, format_options,
    schema_string, partition_columns, created_time, configuration, only_marks)
VALUES (:table_id, :version, 2, :id, :name, :description, 'parquet', '{}',
    :schema_string, :partition_columns, :created_time, :configuration, :only_marks);

-- name: insert_protocol
-- A protocol action.
INSERT INTO dl_protocol_updates (table_id, version, action_order, min_reader_version, min_writer_version,
    reader_features, writer_features)
VALUES (:table_id, :version, 1, :min_reader_version, :min_writer_version, :reader_features, :writer_features);

-- name: insert_txn
-- A txn action: what makes an application's commit idempotent.
INSERT INTO dl_txn_actions (table_id, version, action_order, app_id, app_version, last_updated)
VALUES (:table_id, :version, :action_order, :app_id, :app_version, :commit_ms);

-- name: insert_domain
-- A domainMetadata action.
INSERT INTO dl_domain_metadata (table_id, version, action_order, domain, configuration, removed)
VALUES (:table_id, :version, :action_order, :domain, :configuration, FALSE);

-- name: domain_in_force
-- What a domain says now.
SELECT configuration, removed FROM dl_domain_metadata
WHERE table_id = :table_id AND domain = :domain ORDER BY version DESC LIMIT 1;

-- name: highest_row_id
-- The highest row id that a file gives to a row, or surely more where a file does not say how many it has.
SELECT max(base_row_id + coalesce(num_records, 1099511627776) - 1) FROM dl_add_files WHERE table_id = :table_id;

-- name: known_row_ids
-- The row ids that files had when they were last added.
SELECT path, max(base_row_id) AS base_row_id, max(default_row_commit_version) AS default_row_commit_version
FROM dl_add_files WHERE table_id = :table_id AND base_row_id IS NOT NULL GROUP BY path;

-- name: close_intervals
-- The life of some live files ends at this version. {among} says of which.
UPDATE dl_add_files SET removed_version = :version
WHERE table_id = :table_id AND removed_version IS NULL AND ({among});

-- name: is_committed
-- Did that transaction commit?
SELECT version FROM dl_table_versions WHERE table_id = :table_id AND commit_id = :commit_id;

-- name: insert_clustering
-- The columns that a table is clustered by, as a domainMetadata action.
INSERT INTO dl_domain_metadata (table_id, version, action_order, domain, configuration, removed)
VALUES (:table_id, :version, :action_order, 'delta.clustering', :configuration, FALSE);

-- name: clustering_at
-- The columns that a version is clustered by.
SELECT configuration, removed FROM dl_domain_metadata
WHERE table_id = :table_id AND domain = 'delta.clustering' AND version <= :version
ORDER BY version DESC LIMIT 1;

-- name: insert_identity
-- An identity column, whose values are given out from here on.
INSERT INTO dl_identity (table_id, column_name, next_value) VALUES (:table_id, :column_name, :next_value)
ON CONFLICT DO NOTHING;

-- name: take_identity
-- A range of values of an identity column: nobody else gets it, whatever becomes of this commit.
UPDATE dl_identity SET next_value = next_value + :span
WHERE table_id = :table_id AND column_name = :column_name
RETURNING next_value;

-- name: raise_identity
-- Go on after values that somebody else's commits may have used.
UPDATE dl_identity SET next_value = :next_value
WHERE table_id = :table_id AND column_name = :column_name AND next_value < :next_value;

-- name: lower_identity
-- The same where values fall.
UPDATE dl_identity SET next_value = :next_value
WHERE table_id = :table_id AND column_name = :column_name AND next_value > :next_value;

-- name: insert_outbox
-- The publication that this commit owes.
INSERT INTO dl_mirror_status (table_id, version, status, is_checkpoint, attempts)
VALUES (:table_id, :version, 'PENDING', :is_checkpoint, 0);

-- name: insert_skip_column
-- One indexed leaf column.
INSERT INTO dl_skip_columns (table_id, ordinal, column_path, delta_type, is_partition)
VALUES (:table_id, :ordinal, :column_path, :delta_type, :is_partition);

-- name: delete_skip_columns
-- Before the index is defined anew.
DELETE FROM dl_skip_columns WHERE table_id = :table_id;

-- name: live_file_keys
-- The live files of a table, and what makes each one.
SELECT version, action_order, path, dv_id FROM dl_add_files WHERE table_id = :table_id AND removed_version IS NULL;

-- name: checked_files
-- Of the live files, what an import compares.
SELECT path, dv_id, size, num_records, partition_values
FROM dl_add_files WHERE table_id = :table_id AND removed_version IS NULL;

-- name: end_files
-- Files whose lives ended in commits that somebody else made. dl_staged_ends says where.
UPDATE dl_add_files SET removed_version = (
    SELECT e.removed_version FROM dl_staged_ends e
    WHERE e.version = dl_add_files.version AND e.action_order = dl_add_files.action_order)
WHERE table_id = :table_id AND (version, action_order) IN (SELECT version, action_order FROM dl_staged_ends);

-- name: set_head
-- What an import found of a table whose version it has advanced.
UPDATE dl_tables SET commit_ms = :commit_ms, metadata_version = :metadata_version, protocol_version = :protocol_version,
    uniform_since = :uniform_since, has_files = :has_files
WHERE table_id = :table_id;

-- name: other_table_at
-- Another live table at a place.
SELECT table_name FROM dl_tables WHERE location = :location AND dropped_ms = 0 AND table_id <> :table_id;

-- name: has_deletion_vectors
-- Has any version of a table a deletion vector?
SELECT EXISTS (SELECT 1 FROM dl_add_files WHERE table_id = :table_id AND dv_id <> '');

-- name: has_remote_files
-- Are files of a table named by the URL of a store?
SELECT EXISTS (SELECT 1 FROM dl_add_files WHERE table_id = :table_id AND path LIKE '%://%' AND path NOT LIKE 'file:%');
