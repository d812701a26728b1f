-- The JSON of each action, from its row: what the mirror publishes. Optional fields that are NULL are left out; json_quote(NULL)
-- is NULL in some databases and 'null' in others.
-- A deletionVector or format that has members of its own stands whole in extra, first of all.
-- name: line_commit_info
-- commitInfo
SELECT table_id, version, action_order,
    '{"commitInfo":' || commit_info || '}' AS line
FROM dl_table_versions
WHERE commit_info IS NOT NULL;

-- name: line_protocol
-- protocol
SELECT table_id, version, action_order,
    '{"protocol":{"minReaderVersion":' || min_reader_version || ',"minWriterVersion":' || min_writer_version
    || coalesce(',"readerFeatures":' || reader_features, '')
    || coalesce(',"writerFeatures":' || writer_features, '')
    || coalesce(',' || substr(extra, 2, length(extra) - 2), '')
    || '}}' AS line
FROM dl_protocol_updates;

-- name: line_metadata
-- metaData
SELECT table_id, version, action_order,
    '{"metaData":{"id":' || json_quote(id)
    || CASE WHEN name IS NULL THEN '' ELSE ',"name":' || json_quote(name) END
    || CASE WHEN description IS NULL THEN '' ELSE ',"description":' || json_quote(description) END
    || CASE WHEN substr(extra, 1, 10) = '{"format":' THEN '' ELSE
       ',"format":{"provider":' || json_quote(format_provider) || ',"options":' || format_options || '}' END
    || CASE WHEN schema_string IS NULL THEN '' ELSE ',"schemaString":' || json_quote(schema_string) END
    || ',"partitionColumns":' || partition_columns
    || coalesce(',"createdTime":' || created_time, '')
    || ',"configuration":' || configuration
    || coalesce(',' || substr(extra, 2, length(extra) - 2), '')
    || '}}' AS line
FROM dl_metadata_updates;

-- name: line_txn
-- txn
SELECT table_id, version, action_order,
    '{"txn":{"appId":' || json_quote(app_id) || ',"version":' || app_version
    || coalesce(',"lastUpdated":' || last_updated, '')
    || coalesce(',' || substr(extra, 2, length(extra) - 2), '')
    || '}}' AS line
FROM dl_txn_actions;

-- name: line_domain_metadata
-- domainMetadata
SELECT table_id, version, action_order,
    '{"domainMetadata":{"domain":' || json_quote(domain) || ',"configuration":' || json_quote(configuration)
    || ',"removed":' || CASE WHEN removed THEN 'true' ELSE 'false' END
    || coalesce(',' || substr(extra, 2, length(extra) - 2), '')
    || '}}' AS line
FROM dl_domain_metadata;

-- name: line_cdc
-- cdc
SELECT table_id, version, action_order,
    '{"cdc":{"path":' || json_quote(path) || ',"partitionValues":' || partition_values || ',"size":' || size
    || ',"dataChange":' || CASE WHEN data_change THEN 'true' ELSE 'false' END
    || coalesce(',"tags":' || tags, '')
    || coalesce(',' || substr(extra, 2, length(extra) - 2), '')
    || '}}' AS line
FROM dl_cdc_files;

-- name: line_remove
-- remove
SELECT table_id, version, action_order,
    '{"remove":{"path":' || json_quote(path)
    || coalesce(',"deletionTimestamp":' || deletion_timestamp, '')
    || ',"dataChange":' || CASE WHEN data_change THEN 'true' ELSE 'false' END
    || CASE WHEN extended_file_metadata THEN ',"extendedFileMetadata":true'
       WHEN NOT extended_file_metadata THEN ',"extendedFileMetadata":false' ELSE '' END
    || coalesce(',"partitionValues":' || partition_values, '')
    || coalesce(',"size":' || size, '')
    || CASE WHEN stats IS NULL THEN '' ELSE ',"stats":' || json_quote(stats) END
    || coalesce(',"tags":' || tags, '')
    || CASE WHEN dv_storage_type IS NULL OR substr(extra, 1, 18) = '{"deletionVector":' THEN '' ELSE
       ',"deletionVector":{"storageType":' || json_quote(dv_storage_type)
       || ',"pathOrInlineDv":' || json_quote(dv_path_or_inline_dv)
       || coalesce(',"offset":' || dv_offset, '')
       || ',"sizeInBytes":' || dv_size_in_bytes || ',"cardinality":' || dv_cardinality || '}' END
    || coalesce(',"baseRowId":' || base_row_id, '')
    || coalesce(',"defaultRowCommitVersion":' || default_row_commit_version, '')
    || coalesce(',' || substr(extra, 2, length(extra) - 2), '')
    || '}}' AS line
FROM dl_remove_files;

-- name: line_add
-- add, with the fields that every file has: most files, and a third of the work
SELECT table_id, version, action_order,
    '{"add":{"path":' || json_quote(path) || ',"partitionValues":' || partition_values || ',"size":' || size
    || ',"modificationTime":' || modification_time || ',"dataChange":' || CASE WHEN data_change THEN 'true' ELSE 'false' END
    || CASE WHEN stats IS NULL THEN '' ELSE ',"stats":' || json_quote(stats) END
    || '}}' AS line
FROM dl_add_files
WHERE coalesce(tags, dv_storage_type, clustering_provider, extra) IS NULL
  AND coalesce(base_row_id, default_row_commit_version) IS NULL;

-- name: line_add_rich
-- add, with any of the fields that few files have
SELECT table_id, version, action_order,
    '{"add":{"path":' || json_quote(path)
    || ',"partitionValues":' || partition_values
    || ',"size":' || size
    || ',"modificationTime":' || modification_time
    || ',"dataChange":' || CASE WHEN data_change THEN 'true' ELSE 'false' END
    || CASE WHEN stats IS NULL THEN '' ELSE ',"stats":' || json_quote(stats) END
    || coalesce(',"tags":' || tags, '')
    || CASE WHEN dv_storage_type IS NULL OR substr(extra, 1, 18) = '{"deletionVector":' THEN '' ELSE
       ',"deletionVector":{"storageType":' || json_quote(dv_storage_type)
       || ',"pathOrInlineDv":' || json_quote(dv_path_or_inline_dv)
       || coalesce(',"offset":' || dv_offset, '')
       || ',"sizeInBytes":' || dv_size_in_bytes || ',"cardinality":' || dv_cardinality || '}' END
    || coalesce(',"baseRowId":' || base_row_id, '')
    || coalesce(',"defaultRowCommitVersion":' || default_row_commit_version, '')
    || CASE WHEN clustering_provider IS NULL THEN '' ELSE ',"clusteringProvider":' || json_quote(clustering_provider) END
    || coalesce(',' || substr(extra, 2, length(extra) - 2), '')
    || '}}' AS line
FROM dl_add_files
WHERE coalesce(tags, dv_storage_type, clustering_provider, extra) IS NOT NULL
   OR coalesce(base_row_id, default_row_commit_version) IS NOT NULL;

-- name: line_other
-- an action that an imported log held, word for word
SELECT table_id, version, action_order,
    '{' || json_quote(action_name) || ':' || action || '}' AS line
FROM dl_other_actions;
