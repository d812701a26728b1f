-- Where the skip index has a file that is added again, under a deletion vector say: at the place of an add before, as it holds
-- what is in the file. NULL: at the add's own.
ALTER TABLE dl_add_files ADD COLUMN indexed_version BIGINT;
ALTER TABLE dl_add_files ADD COLUMN indexed_action_order BIGINT;
