-- When a publication that failed is tried again in the background, and who is publishing a table at the moment.
ALTER TABLE dl_mirror_status ADD COLUMN next_attempt_ms BIGINT;

CREATE TABLE dl_mirror_leases (
    table_id   BIGINT PRIMARY KEY,
    holder     TEXT   NOT NULL,
    expires_ms BIGINT NOT NULL                -- 0 once it is given back
);
