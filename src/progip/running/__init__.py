"""``progip run`` and run.py: from a command line to the jobs of a campaign, and its help."""
