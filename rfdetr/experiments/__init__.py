"""What the chapters compute: one group of modules per chapter, named after it, above what all share
(`base`).
"""
