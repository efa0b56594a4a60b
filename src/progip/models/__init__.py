"""Networks and their weights (config group ``model``)."""
