"""The places where the paper disagrees (`inconsistencies.yaml`), recomputed: one function per entry.

A function named after the entry (`i17`) computes from the printed tables and grids whether the disagreement
is really there, and shows the arithmetic. Entries that are words alone have none.
"""
