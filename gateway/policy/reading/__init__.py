"""Reads a parse tree: expressions, queries, changes, definitions, one on top of the other. Pure."""
