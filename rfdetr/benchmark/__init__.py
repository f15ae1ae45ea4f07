"""Measurement: operation counts, parameters, export, latency."""
