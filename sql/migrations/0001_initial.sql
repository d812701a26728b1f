-- The catalog: one row per Delta action, keyed by table, version and place in the commit.
-- Portable text: DuckDB, SQLite and PostgreSQL run it unchanged. JSON is TEXT, times are epoch milliseconds.
-- No foreign keys, and no keys on action tables: (table_id, version) is arbitrated once, in dl_table_versions, and rows of the
-- log are never changed or deleted; DuckDB would also refuse to update a referenced dl_tables row.

CREATE TABLE dl_lake (
    schema_version BIGINT NOT NULL,           -- how many migrations this catalog has seen
    lake_id        TEXT   NOT NULL,
    storage        TEXT   NOT NULL,           -- root under which new tables are placed
    created_ms     BIGINT NOT NULL
);

CREATE TABLE dl_tables (
    table_id      BIGINT PRIMARY KEY,
    table_name    TEXT   NOT NULL,
    name_key      TEXT   NOT NULL,            -- lower-case name: names are case-insensitive, as in DuckDB
    location      TEXT   NOT NULL,            -- absolute path or URL of the table's root
    version       BIGINT NOT NULL,            -- latest committed version
    commit_ms     BIGINT NOT NULL,            -- its time
    metadata_version BIGINT NOT NULL,         -- the version whose metaData action is in force
    protocol_version BIGINT NOT NULL,         -- the version whose protocol action is in force
    uniform_since BIGINT NOT NULL,            -- files added from here on have exactly the current schema
    has_files     BOOLEAN NOT NULL,           -- a data file was added at some time: SQL that globs for them finds one
    created_ms    BIGINT NOT NULL,
    dropped_ms    BIGINT NOT NULL DEFAULT 0,  -- 0 while live
    UNIQUE (name_key, dropped_ms)
);

CREATE TABLE dl_table_versions (
    table_id             BIGINT NOT NULL,
    version              BIGINT NOT NULL,
    commit_ms            BIGINT NOT NULL,     -- strictly rising with version; time travel uses it
    commit_id            TEXT   NOT NULL,     -- the catalog transaction; equal across the tables of one commit
    read_version         BIGINT,
    action_order         BIGINT,              -- place of commitInfo in the commit; NULL when it has none
    commit_info          TEXT,                -- the commitInfo action, as JSON; the columns from here on are fields of it
    timestamp            BIGINT,
    in_commit_timestamp  BIGINT,
    operation            TEXT,
    operation_parameters TEXT,
    operation_metrics    TEXT,
    isolation_level      TEXT,
    is_blind_append      BOOLEAN,
    engine_info          TEXT,
    txn_id               TEXT,
    user_id              TEXT,
    user_name            TEXT,
    user_metadata        TEXT,
    PRIMARY KEY (table_id, version)
);

CREATE TABLE dl_add_files (
    table_id                   BIGINT NOT NULL,
    version                    BIGINT NOT NULL,
    action_order               BIGINT NOT NULL,
    removed_version            BIGINT,        -- NULL while live: the file is part of versions [version, removed_version)
    path                       TEXT    NOT NULL,
    partition_values           TEXT    NOT NULL,
    size                       BIGINT  NOT NULL,
    modification_time          BIGINT  NOT NULL,
    data_change                BOOLEAN NOT NULL,
    stats                      TEXT,
    num_records                BIGINT,        -- stats.numRecords, for SQL that adds up rows
    tags                       TEXT,
    dv_id                      TEXT    NOT NULL DEFAULT '',  -- uniqueId of the deletion vector, '' without one
    dv_storage_type            TEXT,
    dv_path_or_inline_dv       TEXT,
    dv_offset                  BIGINT,
    dv_size_in_bytes           BIGINT,
    dv_cardinality             BIGINT,
    base_row_id                BIGINT,
    default_row_commit_version BIGINT,
    clustering_provider        TEXT,
    extra                      TEXT
);

CREATE TABLE dl_remove_files (
    table_id                   BIGINT NOT NULL,
    version                    BIGINT NOT NULL,
    action_order               BIGINT NOT NULL,
    path                       TEXT    NOT NULL,
    deletion_timestamp         BIGINT,
    data_change                BOOLEAN NOT NULL,
    extended_file_metadata     BOOLEAN,
    partition_values           TEXT,
    size                       BIGINT,
    stats                      TEXT,
    tags                       TEXT,
    dv_id                      TEXT    NOT NULL DEFAULT '',
    dv_storage_type            TEXT,
    dv_path_or_inline_dv       TEXT,
    dv_offset                  BIGINT,
    dv_size_in_bytes           BIGINT,
    dv_cardinality             BIGINT,
    base_row_id                BIGINT,
    default_row_commit_version BIGINT,
    extra                      TEXT
);

CREATE TABLE dl_metadata_updates (
    table_id          BIGINT NOT NULL,
    version           BIGINT NOT NULL,
    action_order      BIGINT NOT NULL,
    id                TEXT NOT NULL,
    name              TEXT,
    description       TEXT,
    format_provider   TEXT NOT NULL,
    format_options    TEXT NOT NULL,
    schema_string     TEXT,                   -- NULL only where an imported log has none
    partition_columns TEXT NOT NULL,
    created_time      BIGINT,
    configuration     TEXT NOT NULL,
    extra             TEXT
);

CREATE TABLE dl_protocol_updates (
    table_id           BIGINT NOT NULL,
    version            BIGINT NOT NULL,
    action_order       BIGINT NOT NULL,
    min_reader_version BIGINT NOT NULL,
    min_writer_version BIGINT NOT NULL,
    reader_features    TEXT,
    writer_features    TEXT,
    extra              TEXT
);

CREATE TABLE dl_txn_actions (
    table_id     BIGINT NOT NULL,
    version      BIGINT NOT NULL,
    action_order BIGINT NOT NULL,
    app_id       TEXT   NOT NULL,
    app_version  BIGINT NOT NULL,             -- txn.version
    last_updated BIGINT,
    extra        TEXT
);

CREATE TABLE dl_domain_metadata (
    table_id      BIGINT  NOT NULL,
    version       BIGINT  NOT NULL,
    action_order  BIGINT  NOT NULL,
    domain        TEXT    NOT NULL,
    configuration TEXT    NOT NULL,
    removed       BOOLEAN NOT NULL,
    extra         TEXT
);

CREATE TABLE dl_cdc_files (
    table_id         BIGINT  NOT NULL,
    version          BIGINT  NOT NULL,
    action_order     BIGINT  NOT NULL,
    path             TEXT    NOT NULL,
    partition_values TEXT    NOT NULL,
    size             BIGINT  NOT NULL,
    data_change      BOOLEAN NOT NULL,
    tags             TEXT,
    extra            TEXT
);

-- Actions of imported logs that the protocol does not know, or that stand twice in a commit: kept word for word.
CREATE TABLE dl_other_actions (
    table_id     BIGINT NOT NULL,
    version      BIGINT NOT NULL,
    action_order BIGINT NOT NULL,
    action_name  TEXT   NOT NULL,
    action       TEXT   NOT NULL              -- JSON
);

-- The outbox: written in the commit's own transaction, taken up by the publisher in version order.
CREATE TABLE dl_mirror_status (
    table_id      BIGINT  NOT NULL,
    version       BIGINT  NOT NULL,
    status        TEXT    NOT NULL,           -- PENDING, SUCCESS, DIVERGED; CHECKPOINT: imported, its own commit is unknown
    is_checkpoint BOOLEAN NOT NULL,           -- a checkpoint of this version is due with it
    attempts      BIGINT  NOT NULL,
    last_error    TEXT,
    published_ms  BIGINT,
    PRIMARY KEY (table_id, version)
);

-- What dl_skip_<table_id> holds: one ordinal per indexed leaf column. Derived from stats, rebuildable.
CREATE TABLE dl_skip_columns (
    table_id     BIGINT  NOT NULL,
    ordinal      BIGINT  NOT NULL,
    column_path  TEXT    NOT NULL,            -- JSON array of physical names, outermost first
    delta_type   TEXT    NOT NULL,
    is_partition BOOLEAN NOT NULL,
    PRIMARY KEY (table_id, ordinal)
);
