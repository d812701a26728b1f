"""What can be done to a table. Each operation stages actions in a transaction; none commits."""
