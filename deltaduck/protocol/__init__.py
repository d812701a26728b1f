"""What the Delta protocol says: schemas, features, statistics, file names. No I/O."""
