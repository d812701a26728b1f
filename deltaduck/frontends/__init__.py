"""The ways in: SQL text, functions on a DuckDB connection, the command line."""
