"""Measured figures, one file a question: `python -m benchmarks [QUESTION ...] [--quick]`.

A figure is the median of its runs, with the lowest and the highest beside it; one above its limit is marked OVER. The
machine should be otherwise idle: the header shows its load.
"""
