"""CREATE OR REPLACE TABLE: a table begins anew, with its history behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from deltaduck import clustering, identity, rules
from deltaduck.changes import Change
from deltaduck.operations import alter, write
from deltaduck.operations.create import change_schema, checked_partitions
from deltaduck.protocol import mapping
from deltaduck.protocol.schema import Struct
from deltaduck.rules import CONSTRAINT

if TYPE_CHECKING:
    from deltaduck.transaction import Transaction


def replace_table(
    tx: Transaction, name: str, schema: Struct, partition_by: Sequence[str], properties: Mapping[str, str],
    description: str | None, cluster_by: Sequence[str],
) -> None:  # fmt: skip
    """Stage a table without rows in the place of what there was. Properties stay unless others are given; constraints go."""
    change = alter.begin(tx, name)
    kept = {k: v for k, v in change.after.configuration.items() if not k.startswith(CONSTRAINT)}
    configuration = kept | {k: v for k, v in properties.items() if k.startswith(CONSTRAINT)}
    clustered = bool(clustering.current(tx.lake.catalog, change))
    schema = mapping.kept(schema, change.after.schema)
    parts = checked_partitions(schema, partition_by)
    identity.check(schema, parts)
    rules.validate(tx.lake.con.cursor(), schema, configuration)
    change = change_schema(change, schema, parts, configuration)
    change.after = replace(change.after, description=description)
    if cluster_by or clustered:
        change = clustering.clustered(change, [tuple(c.split(".")) for c in cluster_by])
    tx.stage(change)
    write.remove_all(tx, change)
    if asked := {k: v for k, v in properties.items() if not k.startswith(CONSTRAINT)}:
        alter.set_properties(tx, name, asked)


def describe(change: Change, how: str) -> None:
    """What the commit is called, whatever it was made of."""
    if change.base is not None:
        change.operation, change.parameters = f"CREATE OR REPLACE TABLE{how}", {}
