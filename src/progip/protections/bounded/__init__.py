"""Activations with an upper bound: what is beyond it becomes zero, or the bound."""
