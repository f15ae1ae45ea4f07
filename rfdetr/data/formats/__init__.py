"""Readers of dataset folders as people have them: one module per format, all with one result."""
