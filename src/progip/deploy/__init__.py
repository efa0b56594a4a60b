"""The guarded detector to take home, and what guarding it costs."""
