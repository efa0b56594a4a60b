"""Statistically sized fault-injection campaigns on neural networks and their OOD detectors."""

__version__ = "0.1.0"
