"""Sweeps: one notebook over a grid of parameters, one trial after the other, and what came of it as a table.

``sweep.load(name)`` reads it; ``make sweep`` makes it.
"""

from imqueue.sweep.store import load

__all__ = ["load"]
