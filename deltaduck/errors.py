"""Every error a user can cause.

DeltaduckError
├── UriError                   a URI that cannot be understood
├── CatalogError               the catalog database cannot be opened, is locked, foreign, newer, or failed
├── TableNotFoundError         no such table
├── TableExistsError           the name or the place is taken
├── VersionNotFoundError       no such version, or nothing that old
├── SchemaMismatchError        a frame, a column or a type does not fit the table
├── ConstraintViolationError   rows break a NOT NULL, a predicate or a table rule
├── UnsupportedFeatureError    the table or the request needs what we cannot honour
├── LogCorruptError            a Delta log that cannot be read
├── CommitConflictError        another commit got there first, and the two do not commute
├── MirrorError                the published log differs, or could not be written
├── StorageError               the storage refused
├── QueryError                 DuckDB could not run a statement
└── MissingDependencyError     an optional package is needed, or is here in a form that cannot be used

The driver's own error is kept in ``__cause__``. Messages name the table, the version and the way out,
and never a secret.
"""

from __future__ import annotations


class DeltaduckError(Exception):
    """Root of every error that deltaduck raises on purpose."""


class UriError(DeltaduckError):
    """A URI is malformed or of an unknown kind."""


class CatalogError(DeltaduckError):
    """The catalog database cannot be opened or failed."""


class TableNotFoundError(DeltaduckError):
    """No table of that name is in the lake."""


class TableExistsError(DeltaduckError):
    """A table of that name, or at that place, exists already."""


class VersionNotFoundError(DeltaduckError):
    """The table has no such version, or is younger than the timestamp."""


class SchemaMismatchError(DeltaduckError):
    """A frame, column or type does not fit the table's schema."""


class ConstraintViolationError(DeltaduckError):
    """Rows break a rule of the table; nothing was written."""


class UnsupportedFeatureError(DeltaduckError):
    """The table's protocol or the request needs a feature that deltaduck cannot honour."""


class LogCorruptError(DeltaduckError):
    """A Delta log, a data file or its metadata cannot be read."""


class CommitConflictError(DeltaduckError):
    """Another commit changed what this one read or wrote.

    table: name of the table; expected: the version read (None: the table's absence);
    actual: the version found; retryable: whether doing the same again on the new version can succeed.
    """

    def __init__(self, table: str, expected: int | None, actual: int, reason: str, *, retryable: bool = True) -> None:
        self.table = table
        self.expected = expected
        self.actual = actual
        self.reason = reason
        self.retryable = retryable
        advice = "read the table again and retry" if retryable else "retrying cannot succeed"
        super().__init__(
            f"table {table!r}: expected version {expected}, found version {actual}: {reason}; nothing was committed; {advice}"
        )

    def __reduce__(self) -> tuple[object, ...]:
        return _conflict, (self.table, self.expected, self.actual, self.reason, self.retryable)


def _conflict(table: str, expected: int | None, actual: int, reason: str, retryable: bool) -> CommitConflictError:
    return CommitConflictError(table, expected, actual, reason, retryable=retryable)


class MirrorError(DeltaduckError):
    """The published ``_delta_log`` differs from the catalog or could not be written."""


class StorageError(DeltaduckError):
    """The storage refused a read or a write."""


class QueryError(DeltaduckError):
    """DuckDB could not parse, bind or run a statement."""


class MissingDependencyError(DeltaduckError):
    """An optional package is needed, or one is installed in a form that cannot be used; the message says what to install."""
