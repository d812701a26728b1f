-- name: function_json_quote
-- DuckDB and SQLite have it built in.
CREATE OR REPLACE FUNCTION json_quote(value TEXT) RETURNS TEXT AS $$ SELECT to_json(value)::TEXT $$ LANGUAGE SQL IMMUTABLE STRICT;

-- name: lock_table_ids
-- Ids are taken one creator at a time; the lock goes with the transaction.
SELECT pg_advisory_xact_lock(7364651);

-- name: table_state
-- Read under a lock: what was found stays true until this transaction ends.
SELECT version, dropped_ms, commit_ms FROM dl_tables WHERE table_id = :table_id FOR UPDATE;

-- name: lock_catalog
-- One makes or migrates the catalog at a time; the lock goes with the transaction.
SELECT pg_advisory_xact_lock(7364652);
