"""A statement's text as words, for the grammar that Spark's Delta adds to SQL and sqlglot does not know."""

from __future__ import annotations

from typing import ClassVar

from sqlglot import TokenType
from sqlglot.dialects.duckdb import DuckDB
from sqlglot.errors import SqlglotError

from deltaduck.errors import QueryError


class _Tokenizer(DuckDB.Tokenizer):
    IDENTIFIERS: ClassVar = ['"', "`"]
    COMMANDS: ClassVar = set()  # whose rest would be one text


class Words:
    """Tokens of one statement, taken from left to right. QueryError shows where something else is expected."""

    def __init__(self, text: str) -> None:
        self.text = text
        try:
            self.tokens = _Tokenizer(dialect="duckdb").tokenize(text)
        except SqlglotError:
            self.tokens = []
        while self.tokens and self.tokens[-1].token_type is TokenType.SEMICOLON:
            self.tokens.pop()
        self.at = 0

    def peek(self) -> str:
        """The next word in upper case; "" at the end."""
        return self.tokens[self.at].text.upper() if self.at < len(self.tokens) else ""

    def take(self, *words: str) -> bool:
        """Go past these words, if they are next."""
        found: list[str] = []
        at = self.at
        while len(found) < len(words) and at < len(self.tokens):
            token = self.tokens[at]
            quoted = token.token_type in (TokenType.STRING, TokenType.IDENTIFIER)
            found += [""] if quoted else token.text.upper().split()  # some tokens are two words
            at += 1
        if found != list(words):
            return False
        self.at = at
        return True

    def need(self, *words: str) -> None:
        if not self.take(*words):
            raise self.error(" ".join(words))

    def name(self) -> str:
        if self.at >= len(self.tokens) or self.peek() in ("(", ")", ",", ".", "=", ";"):
            raise self.error("a name")
        self.at += 1
        return self.tokens[self.at - 1].text

    def path(self) -> tuple[str, ...]:
        """A dotted name."""
        parts = [self.name()]
        while self.take("."):
            parts.append(self.name())
        return tuple(parts)

    def string(self) -> str:
        if self.at >= len(self.tokens) or self.tokens[self.at].token_type not in (TokenType.STRING, TokenType.IDENTIFIER):
            raise self.error("a text in quotes")
        return self.name()

    def constant(self) -> str:
        """A text, number, TRUE or FALSE."""
        sign = "-" if self.take("-") else ""
        return sign + self.name()

    def number(self) -> float:
        text = self.constant()
        try:
            return float(text)
        except ValueError:
            self.at -= 1
            raise self.error("a number") from None

    def until(self, *stops: str) -> str:
        """The text up to one of these words, a comma or the end of what encloses it."""
        first, depth = self.at, 0
        while self.at < len(self.tokens):
            kind, word = self.tokens[self.at].token_type, self.peek()
            quoted = kind in (TokenType.STRING, TokenType.IDENTIFIER)
            if not quoted and depth == 0 and (word in (",", ")", *stops)):
                break
            depth += 0 if quoted else word.count("(") + word.count("<") + word.count("[")
            depth -= 0 if quoted else word.count(")") + word.count(">") + word.count("]")
            self.at += 1
        if first == self.at:
            raise self.error("an expression")
        return self.text[self.tokens[first].start : self.tokens[self.at - 1].end + 1]

    def enclosed(self) -> str:
        """The text inside of parentheses."""
        self.need("(")
        first, depth = self.at, 1
        while self.at < len(self.tokens):
            token = self.tokens[self.at]
            depth += (token.token_type is TokenType.L_PAREN) - (token.token_type is TokenType.R_PAREN)
            self.at += 1
            if depth == 0:
                return self.text[self.tokens[first - 1].end + 1 : token.start].strip()
        raise self.error(")")

    def end(self) -> None:
        if self.at < len(self.tokens):
            raise self.error("the end of the statement")

    def error(self, expected: str) -> QueryError:
        if self.at < len(self.tokens):
            start = self.tokens[self.at].start
            found = f"{self.text[start : start + 30]!r} at character {start + 1}"
        else:
            found = "the end"
        return QueryError(f"{self.text.strip()[:200]}: expected {expected}, found {found}")


def split(text: str) -> list[str]:
    """The statements of a text, each as it is written."""
    if ";" not in text:
        return [text]
    words = Words(text)
    ends = [t.start for t in words.tokens if t.token_type is TokenType.SEMICOLON]
    pieces = [text[a:b] for a, b in zip([0, *(e + 1 for e in ends)], [*ends, len(text)], strict=True)]
    return [p for p in pieces if p.strip()] if ends else [text]
