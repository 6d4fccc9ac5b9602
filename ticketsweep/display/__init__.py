"""What people see: figures as text, tables, live progress, and query results in several formats."""
