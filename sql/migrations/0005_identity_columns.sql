-- Identity columns: the value that nobody has taken yet. Writers take ranges of them, each in a transaction of its own.
CREATE TABLE dl_identity (
    table_id    BIGINT NOT NULL,
    column_name TEXT   NOT NULL,              -- the column's physical name
    next_value  BIGINT NOT NULL,
    PRIMARY KEY (table_id, column_name)
);

-- Does a metaData action only raise high water marks of identity columns? Then nothing conflicts with it.
ALTER TABLE dl_metadata_updates ADD COLUMN only_marks BOOLEAN;
