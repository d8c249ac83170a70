"""From the text a model writes to the parts it is made of: answer, reasoning, calls of tools."""

from gateway.parts.dialect import Dialect, dialect_of
from gateway.parts.parser import Begin, Parser, Piece, Text
from gateway.parts.telling import told

__all__ = ["Begin", "Dialect", "Parser", "Piece", "Text", "dialect_of", "told"]
