"""Executors, and what they observe."""
