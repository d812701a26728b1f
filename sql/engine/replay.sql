-- A Delta log as relations, in a scratch database, before it enters a catalog. dl_line holds every action as JSON; the
-- relations derived from it have the columns of the catalog's tables.

-- name: replay_extra
-- The members of an action that the catalog has no column for, as JSON; NULL without any. A member that is an object (nested)
-- stands there whole, first of all, when it has other members than those of inner.
CREATE MACRO dl_extra(body, known, nested := '-', inner_known := []::VARCHAR[]) AS nullif('{' || array_to_string(list_transform(
    list_concat(CASE WHEN NOT list_has_all(inner_known, coalesce(json_keys(body, dl_member(nested)), [])) THEN [nested] ELSE [] END,
        list_filter(json_keys(body), lambda k: NOT list_contains(known, k) AND json_type(body, dl_member(k)) <> 'NULL')),
    lambda k: to_json(k) || ':' || json_extract(body, dl_member(k))), ',') || '}', '{}');

-- name: replay_member
-- The JSON pointer to a member, which may have any name, even none.
CREATE MACRO dl_member(key) AS '/' || replace(replace(key, '~', '~0'), '/', '~1');

-- name: replay_file_key
-- What makes two actions speak of one file: the place, however it is encoded, and the deletion vector.
CREATE MACRO dl_file_key(path, dv_id) AS regexp_replace(coalesce(TRY(url_decode(path)), path), '^file:/+', '/') || chr(0) || dv_id;

-- name: replay_dv_id
-- A deletion vector's uniqueId, '' without one.
CREATE MACRO dl_dv_id(dv) AS CASE WHEN dv."storageType" IS NULL THEN '' ELSE
    dv."storageType" || dv."pathOrInlineDv" || coalesce('@' || dv."offset", '') END;

-- name: replay_ordered
-- A JSON object of strings, its members in order of their names.
CREATE MACRO dl_ordered(object) AS list_sort(map_entries(from_json(object, '"MAP(VARCHAR,VARCHAR)"')));

-- name: replay_lines
-- Every action of the log.
CREATE TABLE dl_line (version BIGINT, action_order BIGINT, kind VARCHAR, body VARCHAR);

-- name: replay_split
-- The lines of JSON files (dl_content: version, content), and what each says it is.
CREATE OR REPLACE TABLE dl_split AS
SELECT version, action_order, line,
       CASE WHEN json_valid(line) THEN list_filter(json_keys(line), lambda k: json_type(line, dl_member(k)) <> 'NULL') END AS kinds
FROM (SELECT version, action_order, trim(line, ' ' || chr(9) || chr(13)) AS line
      FROM (SELECT version, unnest(string_split(content, chr(10))) AS line,
                   generate_subscripts(string_split(content, chr(10)), 1) - 1 AS action_order
            FROM dl_content))
WHERE line <> '';

-- name: replay_bad_line
-- Of each version, the first line that is no action.
SELECT version, min(action_order) + 1, left(arg_min(line, action_order), 60)
FROM dl_split WHERE coalesce(len(kinds), 0) = 0 GROUP BY version ORDER BY version;

-- name: replay_keep
-- What was split.
INSERT INTO dl_line SELECT version, action_order, kind, line -> dl_member(kind)
FROM (SELECT version, action_order, line, unnest(kinds) AS kind FROM dl_split);

-- name: replay_files
-- add and remove actions, and the files of a table that lived before (dl_before). A file's life ends at the next action on it.
CREATE TABLE dl_file AS
SELECT *, lead(version) OVER (PARTITION BY file_key ORDER BY version, action_order, kind DESC) AS removed_version
FROM (
    SELECT version, action_order, kind, a.path AS path, a."partitionValues" AS partition_values, a."size" AS "size",
        a."modificationTime" AS modification_time, a."deletionTimestamp" AS deletion_timestamp,
        coalesce(a."dataChange", true) AS data_change, a."extendedFileMetadata" AS extended_file_metadata, a.stats AS stats,
        nullif(a.tags, 'null') AS tags, dl_dv_id(a."deletionVector") AS dv_id, a."deletionVector"."storageType" AS dv_storage_type,
        a."deletionVector"."pathOrInlineDv" AS dv_path_or_inline_dv, a."deletionVector"."offset" AS dv_offset,
        a."deletionVector"."sizeInBytes" AS dv_size_in_bytes, a."deletionVector".cardinality AS dv_cardinality,
        a."baseRowId" AS base_row_id, a."defaultRowCommitVersion" AS default_row_commit_version,
        a."clusteringProvider" AS clustering_provider,
        dl_extra(body, ['path', 'partitionValues', 'size', 'dataChange', 'stats', 'tags', 'deletionVector', 'baseRowId', 'defaultRowCommitVersion',
                        CASE kind WHEN 'add' THEN 'modificationTime' ELSE 'deletionTimestamp' END,
                        CASE kind WHEN 'add' THEN 'clusteringProvider' ELSE 'extendedFileMetadata' END],
                 nested := 'deletionVector', inner_known := ['storageType', 'pathOrInlineDv', 'offset', 'sizeInBytes', 'cardinality']) AS extra,
        dl_file_key(a.path, dl_dv_id(a."deletionVector")) AS file_key
    FROM (SELECT version, action_order, kind, body, from_json(body, '{"path":"VARCHAR","partitionValues":"JSON","size":"BIGINT",
            "modificationTime":"BIGINT","deletionTimestamp":"BIGINT","dataChange":"BOOLEAN","extendedFileMetadata":"BOOLEAN",
            "stats":"VARCHAR","tags":"JSON","deletionVector":{"storageType":"VARCHAR","pathOrInlineDv":"VARCHAR","offset":"BIGINT",
            "sizeInBytes":"BIGINT","cardinality":"BIGINT"},"baseRowId":"BIGINT","defaultRowCommitVersion":"BIGINT",
            "clusteringProvider":"VARCHAR"}') AS a
          FROM dl_line WHERE kind IN ('add', 'remove'))
    UNION ALL BY NAME
    SELECT version, action_order, 'before' AS kind, path, dv_id, dl_file_key(path, dv_id) AS file_key FROM dl_before
);

-- name: replay_bad_file
-- The first add or remove that lacks what it must have.
SELECT version, kind, CASE WHEN path IS NULL THEN 'path' WHEN "size" IS NULL THEN 'size' ELSE 'partitionValues' END
FROM dl_file
WHERE path IS NULL OR (kind = 'add' AND ("size" IS NULL OR "size" < 0 OR partition_values IS NULL OR json_type(partition_values) <> 'OBJECT'))
ORDER BY version, action_order LIMIT 1;

-- name: replay_add_files
-- Rows of dl_add_files.
SELECT CAST(:table_id AS BIGINT) AS table_id, greatest(version, :base) AS version,
    CASE WHEN version > :base THEN action_order ELSE row_number() OVER (ORDER BY version, action_order) END AS action_order,
    removed_version, path, partition_values, "size", coalesce(modification_time, 0) AS modification_time, data_change, stats,
    TRY_CAST(TRY_CAST(stats AS JSON) ->> '$.numRecords' AS BIGINT) AS num_records, tags, dv_id, dv_storage_type,
    dv_path_or_inline_dv, dv_offset, dv_size_in_bytes, dv_cardinality, base_row_id, default_row_commit_version, clustering_provider,
    extra
FROM dl_file
WHERE kind = 'add' AND (version > :base OR removed_version IS NULL OR removed_version > :base);

-- name: replay_remove_files
-- Rows of dl_remove_files: all of them, or up to the base those that are the last word on their file.
SELECT CAST(:table_id AS BIGINT) AS table_id, greatest(version, :base) AS version,
    CASE WHEN version > :base THEN action_order ELSE row_number() OVER (ORDER BY version, action_order) END AS action_order,
    path, deletion_timestamp, data_change, extended_file_metadata, partition_values, "size", stats, tags, dv_id, dv_storage_type,
    dv_path_or_inline_dv, dv_offset, dv_size_in_bytes, dv_cardinality, base_row_id, default_row_commit_version, extra
FROM dl_file
WHERE kind = 'remove' AND (version > :base OR removed_version IS NULL OR removed_version > :base);

-- name: replay_ended_files
-- Files that lived before, and the version at which they end.
SELECT version, action_order, removed_version FROM dl_file WHERE kind = 'before' AND removed_version IS NOT NULL;

-- name: replay_metadata_updates
-- Rows of dl_metadata_updates.
SELECT CAST(:table_id AS BIGINT) AS table_id, greatest(version, :base) AS version, action_order, coalesce(m.id, '') AS id, m.name AS name,
    m.description AS description, coalesce(m.format.provider, 'parquet') AS format_provider,
    coalesce(nullif(m.format.options, 'null'), '{}') AS format_options, m."schemaString" AS schema_string,
    coalesce(nullif(m."partitionColumns", 'null'), '[]') AS partition_columns, m."createdTime" AS created_time,
    coalesce(nullif(m.configuration, 'null'), '{}') AS configuration,
    dl_extra(body, ['id', 'name', 'description', 'format', 'schemaString', 'partitionColumns', 'createdTime', 'configuration'],
             nested := 'format', inner_known := ['provider', 'options']) AS extra
FROM (SELECT *, from_json(body, '{"id":"VARCHAR","name":"VARCHAR","description":"VARCHAR","format":{"provider":"VARCHAR","options":"JSON"},
        "schemaString":"VARCHAR","partitionColumns":"JSON","createdTime":"BIGINT","configuration":"JSON"}') AS m
      FROM dl_line WHERE kind = 'metaData')
QUALIFY row_number() OVER (PARTITION BY greatest(version, :base) ORDER BY version DESC, action_order DESC) = 1;

-- name: replay_protocol_updates
-- Rows of dl_protocol_updates.
SELECT CAST(:table_id AS BIGINT) AS table_id, greatest(version, :base) AS version, action_order, p."minReaderVersion" AS min_reader_version,
    p."minWriterVersion" AS min_writer_version, nullif(p."readerFeatures", 'null') AS reader_features,
    nullif(p."writerFeatures", 'null') AS writer_features,
    dl_extra(body, ['minReaderVersion', 'minWriterVersion', 'readerFeatures', 'writerFeatures']) AS extra
FROM (SELECT *, from_json(body, '{"minReaderVersion":"BIGINT","minWriterVersion":"BIGINT","readerFeatures":"JSON","writerFeatures":"JSON"}') AS p
      FROM dl_line WHERE kind = 'protocol')
QUALIFY row_number() OVER (PARTITION BY greatest(version, :base) ORDER BY version DESC, action_order DESC) = 1;

-- name: replay_txn_actions
-- Rows of dl_txn_actions.
SELECT CAST(:table_id AS BIGINT) AS table_id, greatest(version, :base) AS version, action_order, t."appId" AS app_id,
    t."version" AS app_version, t."lastUpdated" AS last_updated, dl_extra(body, ['appId', 'version', 'lastUpdated']) AS extra
FROM (SELECT *, from_json(body, '{"appId":"VARCHAR","version":"BIGINT","lastUpdated":"BIGINT"}') AS t FROM dl_line WHERE kind = 'txn')
WHERE t."appId" IS NOT NULL AND t."version" IS NOT NULL
QUALIFY version > :base OR row_number() OVER (PARTITION BY version <= :base, t."appId" ORDER BY version DESC, action_order DESC) = 1;

-- name: replay_domain_metadata
-- Rows of dl_domain_metadata.
SELECT CAST(:table_id AS BIGINT) AS table_id, greatest(version, :base) AS version, action_order, d."domain" AS "domain",
    coalesce(d.configuration, '') AS configuration, coalesce(d.removed, false) AS removed,
    dl_extra(body, ['domain', 'configuration', 'removed']) AS extra
FROM (SELECT *, from_json(body, '{"domain":"VARCHAR","configuration":"VARCHAR","removed":"BOOLEAN"}') AS d
      FROM dl_line WHERE kind = 'domainMetadata')
WHERE d."domain" IS NOT NULL
QUALIFY version > :base OR row_number() OVER (PARTITION BY version <= :base, d."domain" ORDER BY version DESC, action_order DESC) = 1;

-- name: replay_cdc_files
-- Rows of dl_cdc_files.
SELECT CAST(:table_id AS BIGINT) AS table_id, version, action_order, c.path AS path, coalesce(c."partitionValues", '{}') AS partition_values,
    coalesce(c."size", 0) AS "size", coalesce(c."dataChange", false) AS data_change, nullif(c.tags, 'null') AS tags,
    dl_extra(body, ['path', 'partitionValues', 'size', 'dataChange', 'tags']) AS extra
FROM (SELECT *, from_json(body, '{"path":"VARCHAR","partitionValues":"JSON","size":"BIGINT","dataChange":"BOOLEAN","tags":"JSON"}') AS c
      FROM dl_line WHERE kind = 'cdc')
WHERE c.path IS NOT NULL AND version > :base;

-- name: replay_other_actions
-- Actions that the protocol does not know, knows once per commit, or knows with more than they have: word for word.
SELECT CAST(:table_id AS BIGINT) AS table_id, version, action_order, kind AS action_name, body AS action
FROM dl_line
WHERE version > :base AND (kind NOT IN ('add', 'remove', 'metaData', 'protocol', 'txn', 'domainMetadata', 'cdc', 'commitInfo')
    OR kind = 'txn' AND ((body ->> '$.appId') IS NULL OR TRY_CAST(body ->> '$.version' AS BIGINT) IS NULL)
    OR kind = 'domainMetadata' AND (body ->> '$.domain') IS NULL
    OR kind = 'cdc' AND (body ->> '$.path') IS NULL
    OR (kind IN ('metaData', 'protocol', 'commitInfo')
        AND (version, action_order) NOT IN (SELECT (version, max(action_order)) FROM dl_line GROUP BY version, kind)));

-- name: replay_table_versions
-- Rows of dl_table_versions, from dl_commit (version, modified_ms): times rise strictly.
SELECT CAST(:table_id AS BIGINT) AS table_id, version,
    greatest(max(coalesce(told_ms, modified_ms) - version) OVER (ORDER BY version), :after_ms + 1 - :after_version - 1) + version AS commit_ms,
    coalesce(i."txnId", :import_id || '-' || version) AS commit_id, i."readVersion" AS read_version, action_order, body AS commit_info,
    i."timestamp" AS "timestamp", i."inCommitTimestamp" AS in_commit_timestamp, i.operation AS operation,
    nullif(i."operationParameters", 'null') AS operation_parameters, nullif(i."operationMetrics", 'null') AS operation_metrics,
    i."isolationLevel" AS isolation_level, i."isBlindAppend" AS is_blind_append, i."engineInfo" AS engine_info, i."txnId" AS txn_id,
    i."userId" AS user_id, i."userName" AS user_name, i."userMetadata" AS user_metadata
FROM (SELECT c.version, c.modified_ms, l.action_order, l.body, l.i,
             CASE WHEN coalesce(l.i."inCommitTimestamp", l.i."timestamp") BETWEEN 0 AND 253402300799999
                  THEN coalesce(l.i."inCommitTimestamp", l.i."timestamp") END AS told_ms
      FROM dl_commit c
      LEFT JOIN (SELECT version, action_order, body, from_json(body, '{"timestamp":"BIGINT","inCommitTimestamp":"BIGINT",
                    "operation":"VARCHAR","operationParameters":"JSON","operationMetrics":"JSON","isolationLevel":"VARCHAR",
                    "isBlindAppend":"BOOLEAN","engineInfo":"VARCHAR","txnId":"VARCHAR","userId":"VARCHAR","userName":"VARCHAR",
                    "userMetadata":"VARCHAR","readVersion":"BIGINT"}') AS i
                 FROM dl_line WHERE kind = 'commitInfo'
                 QUALIFY row_number() OVER (PARTITION BY version ORDER BY action_order DESC) = 1) l USING (version));

-- name: replay_live_files
-- The live files by another way than intervals: the last word on each. To compare with what the catalog says.
SELECT path, dv_id, "size", partition_values,
    TRY_CAST(TRY_CAST(stats AS JSON) ->> '$.numRecords' AS BIGINT) AS num_records
FROM dl_file
QUALIFY kind IN ('add', 'before') AND row_number() OVER (PARTITION BY file_key ORDER BY version DESC, action_order DESC) = 1;

-- name: replay_new_files
-- Files that were added and are live at the end, and the files of their deletion vectors.
SELECT path, CAST(NULL AS VARCHAR) AS dv_storage_type FROM dl_file WHERE kind = 'add' AND removed_version IS NULL
UNION
SELECT dv_path_or_inline_dv, dv_storage_type FROM dl_file
WHERE kind = 'add' AND removed_version IS NULL AND dv_storage_type IN ('u', 'p');

-- name: replay_totals
-- Files and bytes that are live at the end.
SELECT count(*), CAST(coalesce(sum("size"), 0) AS BIGINT) FROM dl_file WHERE kind = 'add' AND removed_version IS NULL;

-- name: replay_difference
-- How many files of dl_theirs are not in dl_ours, the other way round, and are other than there; one of them.
SELECT count(*) FILTER (o.file_key IS NULL), count(*) FILTER (t.file_key IS NULL),
       count(*) FILTER (o.file_key IS NOT NULL AND t.file_key IS NOT NULL), min(coalesce(o.path, t.path))
FROM (SELECT *, dl_file_key(path, dv_id) AS file_key FROM dl_ours) o
FULL JOIN (SELECT *, dl_file_key(path, dv_id) AS file_key FROM dl_theirs) t USING (file_key)
WHERE o.file_key IS NULL OR t.file_key IS NULL OR o."size" <> t."size" OR o.num_records <> t.num_records
   OR dl_ordered(o.partition_values) <> dl_ordered(t.partition_values);
