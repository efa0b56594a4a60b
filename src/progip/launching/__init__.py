"""How Hydra launches jobs, seen from inside one and from their traces on disk."""
