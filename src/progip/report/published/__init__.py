"""Figures of publications, beside which measured ones can be shown."""
