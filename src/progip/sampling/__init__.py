"""How the faults of a cell are drawn, one class per file (config group ``sampling``)."""
