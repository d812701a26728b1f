-- Run by the engine over rows that the catalog gave as Arrow: a checkpoint is Parquet, and DuckDB writes it.

-- A checkpoint is the UNION ALL of these, one row per action, in the protocol's checkpoint schema.
-- https://github.com/delta-io/delta/blob/master/PROTOCOL.md#checkpoint-schema
-- A V2 checkpoint (#v2-spec there) has its files and tombstones in a sidecar, and the rest, which is small, in the checkpoint itself.

-- name: checkpoint_protocol
-- The protocol, and the types of all columns.
SELECT
    struct_pack("minReaderVersion" := CAST(min_reader_version AS INTEGER), "minWriterVersion" := CAST(min_writer_version AS INTEGER),
                "readerFeatures" := from_json(reader_features, '["VARCHAR"]'), "writerFeatures" := from_json(writer_features, '["VARCHAR"]')
    ) AS protocol,
    NULL::STRUCT(id VARCHAR, name VARCHAR, description VARCHAR, format STRUCT(provider VARCHAR, options MAP(VARCHAR, VARCHAR)),
                 "schemaString" VARCHAR, "partitionColumns" VARCHAR[], "createdTime" BIGINT, configuration MAP(VARCHAR, VARCHAR)) AS "metaData",
    NULL::STRUCT("appId" VARCHAR, "version" BIGINT, "lastUpdated" BIGINT) AS txn,
    NULL::STRUCT("domain" VARCHAR, configuration VARCHAR, removed BOOLEAN) AS "domainMetadata",
    NULL::STRUCT(path VARCHAR, "deletionTimestamp" BIGINT, "dataChange" BOOLEAN, "extendedFileMetadata" BOOLEAN,
                 "partitionValues" MAP(VARCHAR, VARCHAR), "size" BIGINT,
                 "deletionVector" STRUCT("storageType" VARCHAR, "pathOrInlineDv" VARCHAR, "offset" INTEGER, "sizeInBytes" INTEGER, cardinality BIGINT),
                 "baseRowId" BIGINT, "defaultRowCommitVersion" BIGINT) AS remove,
    NULL::STRUCT(path VARCHAR, "partitionValues" MAP(VARCHAR, VARCHAR), "size" BIGINT, "modificationTime" BIGINT, "dataChange" BOOLEAN,
                 stats VARCHAR, tags MAP(VARCHAR, VARCHAR),
                 "deletionVector" STRUCT("storageType" VARCHAR, "pathOrInlineDv" VARCHAR, "offset" INTEGER, "sizeInBytes" INTEGER, cardinality BIGINT),
                 "baseRowId" BIGINT, "defaultRowCommitVersion" BIGINT, "clusteringProvider" VARCHAR) AS add
FROM dl_checkpoint_head;

-- name: checkpoint_metadata
-- Its metadata.
SELECT NULL, struct_pack(id := id, name := name, description := description,
            format := struct_pack(provider := 'parquet', options := MAP {}::MAP(VARCHAR, VARCHAR)), "schemaString" := schema_string,
            "partitionColumns" := from_json(partition_columns, '["VARCHAR"]'), "createdTime" := created_time,
            configuration := from_json(configuration, '"MAP(VARCHAR,VARCHAR)"')),
       NULL, NULL, NULL, NULL
FROM dl_checkpoint_head;

-- name: checkpoint_txns
-- Its txns.
SELECT NULL, NULL, struct_pack("appId" := app_id, "version" := app_version, "lastUpdated" := last_updated), NULL, NULL, NULL
FROM dl_checkpoint_txns;

-- name: checkpoint_domains
-- Its domains.
SELECT NULL, NULL, NULL, struct_pack("domain" := domain, configuration := configuration, removed := false), NULL, NULL
FROM dl_checkpoint_domains;

-- name: checkpoint_removes
-- Its removes.
SELECT NULL, NULL, NULL, NULL,
       struct_pack(path := path, "deletionTimestamp" := deletion_timestamp, "dataChange" := false,
            "extendedFileMetadata" := extended_file_metadata, "partitionValues" := from_json(partition_values, '"MAP(VARCHAR,VARCHAR)"'),
            "size" := size,
            "deletionVector" := CASE WHEN dv_storage_type IS NOT NULL THEN struct_pack("storageType" := dv_storage_type,
                "pathOrInlineDv" := dv_path_or_inline_dv, "offset" := CAST(dv_offset AS INTEGER),
                "sizeInBytes" := CAST(dv_size_in_bytes AS INTEGER), cardinality := dv_cardinality) END,
            "baseRowId" := base_row_id, "defaultRowCommitVersion" := default_row_commit_version),
       NULL
FROM dl_checkpoint_removes;

-- name: checkpoint_files
-- Its files.
SELECT NULL, NULL, NULL, NULL, NULL,
       struct_pack(path := path, "partitionValues" := from_json(partition_values, '"MAP(VARCHAR,VARCHAR)"'), "size" := size,
            "modificationTime" := modification_time, "dataChange" := false, stats := stats,
            tags := from_json(tags, '"MAP(VARCHAR,VARCHAR)"'),
            "deletionVector" := CASE WHEN dv_storage_type IS NOT NULL THEN struct_pack("storageType" := dv_storage_type,
                "pathOrInlineDv" := dv_path_or_inline_dv, "offset" := CAST(dv_offset AS INTEGER),
                "sizeInBytes" := CAST(dv_size_in_bytes AS INTEGER), cardinality := dv_cardinality) END,
            "baseRowId" := base_row_id, "defaultRowCommitVersion" := default_row_commit_version,
            "clusteringProvider" := clustering_provider)
FROM dl_checkpoint_files;

-- name: checkpoint_sidecar
-- Files and tombstones of a V2 checkpoint.
SELECT {columns} FROM ({rows}) WHERE coalesce(add.path, remove.path) IS NOT NULL;

-- name: checkpoint_v2
-- All else; what the checkpoint says of itself, and where the sidecar is. dl_checkpoint_sidecar: version, path, size_in_bytes,
-- modification_time. Its columns add and remove are empty: Spark refuses a checkpoint that lacks them.
SELECT struct_pack("version" := version, tags := NULL::MAP(VARCHAR, VARCHAR)) AS "checkpointMetadata",
       NULL AS protocol, NULL AS "metaData", NULL AS txn, NULL AS "domainMetadata",
       NULL::STRUCT(path VARCHAR, "sizeInBytes" BIGINT, "modificationTime" BIGINT, tags MAP(VARCHAR, VARCHAR)) AS sidecar,
       NULL AS remove, NULL AS add
FROM dl_checkpoint_sidecar
UNION ALL
SELECT NULL, protocol, "metaData", txn, "domainMetadata", NULL, remove, add FROM ({rows})
UNION ALL
SELECT NULL, NULL, NULL, NULL, NULL, struct_pack(path := path, "sizeInBytes" := size_in_bytes,
       "modificationTime" := modification_time, tags := NULL::MAP(VARCHAR, VARCHAR)), NULL, NULL
FROM dl_checkpoint_sidecar;
