"""What CREATE TABLE says of the table: columns, rules, properties, layout."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sqlglot import exp

from deltaduck import identity, rules
from deltaduck.errors import QueryError, SchemaMismatchError, UnsupportedFeatureError
from deltaduck.operations.create import field_of
from deltaduck.protocol.schema import Field, Struct

if TYPE_CHECKING:
    from deltaduck.snapshot import Snapshot


def definition(tree: exp.Create) -> tuple[Struct, dict[str, str], str | None, str | None]:
    """(columns, properties, comment, location) of CREATE TABLE; the columns are empty with AS SELECT."""
    schema = tree.this if isinstance(tree.this, exp.Schema) else None
    columns: list[Field] = []
    constraints: dict[str, str] = {}
    for item in schema.expressions if schema else []:
        match item:
            case exp.ColumnDef():
                columns.append(_column(item, constraints))
            case exp.Constraint() | exp.CheckColumnConstraint():
                _constraint(item, constraints)
            case exp.Identifier() if tree.expression is not None:  # the names of AS SELECT's columns
                pass
            case exp.LikeProperty() if schema and len(schema.expressions) == 1:
                pass
            case _:
                raise UnsupportedFeatureError(f"table constraint {item.sql('duckdb')} is not supported: leave it out")
    properties: dict[str, str] = {}
    comment = location = None
    for p in tree.args["properties"].expressions if tree.args.get("properties") else []:
        match p:
            case exp.SchemaCommentProperty():
                comment = p.this.name
            case exp.LocationProperty():
                location = p.this.name
            case exp.FileFormatProperty() if p.name.lower() != "delta":
                raise UnsupportedFeatureError(f"USING {p.name}: tables of a lake are Delta tables")
            case _ if type(p) is exp.Property:
                properties[p.name] = p.args["value"].name or p.args["value"].sql("duckdb").lower()
            case exp.FileFormatProperty() | exp.PartitionedByProperty() | exp.ClusterProperty() | exp.LikeProperty():
                pass
            case exp.ExternalProperty():
                pass
            case exp.WithDataProperty() if tree.expression is not None:
                pass
            case _:
                raise UnsupportedFeatureError(
                    f"CREATE TABLE: {p.sql('duckdb') or type(p).__name__} is not supported: leave it out"
                )
    return Struct(tuple(columns)), {**properties, **constraints}, comment, location


def partitioning(property_: exp.PartitionedByProperty) -> list[str]:
    """The columns of PARTITIONED BY."""
    parts = property_.this.expressions
    if other := [p for p in parts if not isinstance(p, exp.Identifier)]:
        raise UnsupportedFeatureError(
            f"PARTITIONED BY ({other[0].sql('duckdb')}): it takes names of columns that the table has; for a value made of "
            "others, have a column GENERATED ALWAYS AS (...)"
        )
    return [p.name for p in parts]


def model(tree: exp.Create) -> str | None:
    """The table that CREATE TABLE ... LIKE names."""
    found = tree.find(exp.LikeProperty)
    return None if found is None else found.this.name


def alike(table: Snapshot) -> Struct:
    """The columns of a table for another one, whose identities begin anew."""
    return Struct(tuple(replace(f, metadata={k: v for k, v in f.metadata.items() if k != identity.MARK}) for f in table.schema))


def clustering(tree: exp.Create) -> list[str]:
    """The columns of CREATE TABLE ... CLUSTER BY (...)."""
    found = tree.args["properties"].find(exp.ClusterProperty) if tree.args.get("properties") else None
    return (
        [".".join(p.name for p in c.parts) if isinstance(c, exp.Column) else c.name for c in found.expressions] if found else []
    )


def _column(column: exp.ColumnDef, constraints: dict[str, str]) -> Field:
    if column.args.get("kind") is None:
        raise QueryError(f"column {column.name!r} has no type")
    f = field_of(column.name, column.args["kind"].sql("duckdb"))
    for c in column.constraints:
        match c.args["kind"]:
            case exp.NotNullColumnConstraint() as kind:
                f = replace(f, nullable=bool(kind.args.get("allow_null")))
            case exp.CommentColumnConstraint() as kind:
                f = with_metadata(f, "comment", kind.this.name)
            case exp.DefaultColumnConstraint() as kind:
                f = with_metadata(f, rules.DEFAULT, rules.to_log(kind.this.sql("duckdb")))
            case exp.CheckColumnConstraint():
                _constraint(c.args["kind"], constraints)
            case exp.ComputedColumnConstraint() as kind:
                f = with_metadata(f, rules.GENERATED, rules.to_log(kind.this.unnest().sql("duckdb")))
            case exp.GeneratedAsIdentityColumnConstraint() as kind if kind.args.get("expression") is not None:
                f = with_metadata(f, rules.GENERATED, rules.to_log(kind.args["expression"].unnest().sql("duckdb")))
            case exp.GeneratedAsIdentityColumnConstraint() as kind:
                start, step = (int(kind.args[k].sql()) if kind.args.get(k) else 1 for k in ("start", "increment"))
                f = replace(f, metadata={**f.metadata, **identity.metadata(start, step, always=bool(kind.this))})
            case kind:
                raise UnsupportedFeatureError(f"column {column.name!r}: {kind.sql('duckdb')} is not supported: leave it out")
    return f


def _constraint(item: exp.Expr, constraints: dict[str, str]) -> None:
    checks = item.expressions if isinstance(item, exp.Constraint) else [item]
    if len(checks) != 1 or not isinstance(checks[0], exp.CheckColumnConstraint):
        raise UnsupportedFeatureError(f"table constraint {item.sql('duckdb')} is not supported: leave it out")
    name = item.name.lower() if isinstance(item, exp.Constraint) else f"check_{len(constraints) + 1}"
    if rules.CONSTRAINT + name in constraints:
        raise SchemaMismatchError(f"constraint {name!r} stands twice: give it another name")
    constraints[rules.CONSTRAINT + name] = rules.to_log(checks[0].this.sql("duckdb"))


def with_metadata(f: Field, key: str, value: str) -> Field:
    return replace(f, metadata={**f.metadata, key: value})
