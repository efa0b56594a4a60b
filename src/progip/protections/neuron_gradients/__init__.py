"""The parts of gradient-statistics suppression, each a few pure functions."""
