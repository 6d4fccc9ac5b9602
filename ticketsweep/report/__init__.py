"""A sweep on one page: figures, tables and sentences in one HTML file that needs no network."""
