"""Delta Lake tables whose log lives in a SQL database, queried by DuckDB, readable by everyone."""

from deltaduck._version import __version__
from deltaduck.errors import (
    CatalogError,
    CommitConflictError,
    ConstraintViolationError,
    DeltaduckError,
    LogCorruptError,
    MirrorError,
    MissingDependencyError,
    QueryError,
    SchemaMismatchError,
    StorageError,
    TableExistsError,
    TableNotFoundError,
    UnsupportedFeatureError,
    UriError,
    VersionNotFoundError,
)
from deltaduck.frontends.deltalake import convert_to_deltalake, write_deltalake
from deltaduck.frontends.functions import register
from deltaduck.frontends.query_builder import QueryBuilder
from deltaduck.lake import Lake, connect
from deltaduck.lakes import begin
from deltaduck.migrate import migrate
from deltaduck.properties import AppTransaction, CommitProperties, PostCommitHookProperties, WriterProperties
from deltaduck.protocol.schema import Field
from deltaduck.shapes import AddAction, RemoveAction, Schema
from deltaduck.table import DeltaTable
from deltaduck.transaction import Transaction
from deltaduck.uris import uri

__all__ = [
    "AddAction",
    "AppTransaction",
    "CatalogError",
    "CommitConflictError",
    "CommitProperties",
    "ConstraintViolationError",
    "DeltaTable",
    "DeltaduckError",
    "Field",
    "Lake",
    "LogCorruptError",
    "MirrorError",
    "MissingDependencyError",
    "PostCommitHookProperties",
    "QueryBuilder",
    "QueryError",
    "RemoveAction",
    "Schema",
    "SchemaMismatchError",
    "StorageError",
    "TableExistsError",
    "TableNotFoundError",
    "Transaction",
    "UnsupportedFeatureError",
    "UriError",
    "VersionNotFoundError",
    "WriterProperties",
    "__version__",
    "begin",
    "connect",
    "convert_to_deltalake",
    "migrate",
    "register",
    "uri",
    "write_deltalake",
]
