-- When VACUUM deleted a file: versions that held it can no longer be read, and say so.
ALTER TABLE dl_add_files ADD COLUMN deleted_ms BIGINT;
ALTER TABLE dl_cdc_files ADD COLUMN deleted_ms BIGINT;
