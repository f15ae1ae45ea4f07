"""Claims that the paper's own tables decide: one function per claim, one module per subject.

Nothing is measured here. `rfdetr.paper.verdicts.findings` runs the functions on the printed tables.
"""
