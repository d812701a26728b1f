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
from deltaduck.frontends.functions import register
from deltaduck.lake import Lake, connect
from deltaduck.table import DeltaTable
from deltaduck.transaction import Transaction
from deltaduck.uris import uri

__all__ = [
    "CatalogError",
    "CommitConflictError",
    "ConstraintViolationError",
    "DeltaTable",
    "DeltaduckError",
    "Lake",
    "LogCorruptError",
    "MirrorError",
    "MissingDependencyError",
    "QueryError",
    "SchemaMismatchError",
    "StorageError",
    "TableExistsError",
    "TableNotFoundError",
    "Transaction",
    "UnsupportedFeatureError",
    "UriError",
    "VersionNotFoundError",
    "__version__",
    "connect",
    "register",
    "uri",
]
