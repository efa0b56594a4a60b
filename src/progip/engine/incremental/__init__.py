"""Incremental execution: a pass does only what a fault can change.

The whole detector is traced into one flat graph of ATen operations; rows join the graph at their
fault and leave it where they have become equal, bit for bit, to the golden run.
"""

from progip.engine.incremental.executor import IncrementalExecutor
from progip.engine.incremental.rounds import IncrementalRounds
from progip.engine.incremental.stored import loaded_or_traced
from progip.engine.incremental.tracing import NotTraceable, Traced

__all__ = ["IncrementalExecutor", "IncrementalRounds", "NotTraceable", "Traced", "loaded_or_traced"]
