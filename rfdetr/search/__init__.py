"""Search over sub-networks: exact grid with shared prefixes, budgeted search, Pareto fronts, latency
prediction.
"""
