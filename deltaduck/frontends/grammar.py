"""The grammar of statements: sqlglot's of DuckDB, with what it lacks; and whether all that a statement says is heard."""

from __future__ import annotations

from typing import Any, ClassVar

from sqlglot import TokenType, exp
from sqlglot.dialects.duckdb import DuckDB

from deltaduck.errors import MissingDependencyError, QueryError, UnsupportedFeatureError


class Grammar(DuckDB):
    """DuckDB's SQL. What is not understood is an error that shows where, never a text that is passed over."""

    class Tokenizer(DuckDB.Tokenizer):
        IDENTIFIERS: ClassVar = ['"', "`"]

    class Parser(DuckDB.Parser):  # type: ignore[misc, valid-type]
        def _parse_as_command(self, start: Any) -> Any:
            self.raise_error("Unexpected token")

        def _warn_unsupported(self) -> None:
            """Commands are DuckDB's business."""

        def _parse_generated_as_identity(self) -> Any:
            found = super()._parse_generated_as_identity()
            self._match_texts(("STORED", "VIRTUAL"))  # a table of files can only store
            return found

        def _parse_star(self) -> Any:
            if self._prev.token_type in (TokenType.INSERT, TokenType.UPDATE) and self._match_text_seq("BY", "NAME"):
                return super()._parse_star() or exp.Star()  # a MERGE's INSERT BY NAME, UPDATE BY NAME
            return super()._parse_star()


try:
    Grammar.Parser()
except TypeError as e:
    raise MissingDependencyError(
        "deltaduck extends sqlglot's grammar, which sqlglotc replaces by compiled classes that nobody can extend; the extras "
        "sqlglot[c] and sqlglot[rs] install it. Run: pip uninstall sqlglotc"
    ) from e

_HEARD: dict[type, str] = {
    exp.Insert: "with_ this expression conflict ignore alternative returning overwrite where by_name default",
    exp.Update: "with_ this expressions from_ where returning",
    exp.Delete: "with_ this using where returning",
    exp.Merge: "with_ this using on using_cond whens returning schema_evolution",
    exp.Create: "this kind expression exists replace properties",
    exp.Drop: "kind tables exists cascade restrict purge",
    exp.TruncateTable: "expressions",
    exp.Table: "this db catalog alias partition",
}


def require_heard(tree: exp.Expr, target: exp.Table | None) -> None:
    """UnsupportedFeatureError for a part of a statement that nothing here would look at, as LIMIT of a DELETE."""
    for node in (tree, target):
        known = _HEARD.get(type(node), "").split()
        for key, value in node.args.items() if node is not None and known else ():
            if value and key not in known:
                parts = value if isinstance(value, list) else [value]
                said = ", ".join(p.sql("duckdb").strip() if isinstance(p, exp.Expr) else key.upper() for p in parts)
                verb = type(tree).__name__.removesuffix("Table").upper()
                raise UnsupportedFeatureError(f"{verb} on lake tables takes no {said}: nothing was done")


def require_scalar(tree: exp.Expr) -> None:
    """QueryError for an expression that is not of one row: what it is of would depend on the files that are opened."""
    for node in tree.find_all(exp.Window, exp.AggFunc):
        if node.find_ancestor(exp.Query) is None:
            what = "window functions" if isinstance(node, exp.Window) else "aggregates"
            raise QueryError(f"{node.sql('duckdb')}: {what} are not allowed here: join a subquery that has them")
