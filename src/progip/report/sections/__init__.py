"""The sections of a report: tables and sentences from what the analysis counted."""
