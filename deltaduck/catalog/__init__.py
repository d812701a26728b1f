"""The catalog: the Delta log as SQL tables, in any of the databases."""

from deltaduck.catalog.base import Catalog, Params

__all__ = ["Catalog", "Params"]
