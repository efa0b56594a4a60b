"""Heads: what stands in the place of a network's last linear layer, one class per file."""
