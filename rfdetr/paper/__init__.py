"""The paper as data: every table, grid, claim and known inconsistency (see README.md in this folder)."""
