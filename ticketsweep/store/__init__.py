"""The mask database: five Parquet tables, one atomic file per trial and table, queried in SQL."""
