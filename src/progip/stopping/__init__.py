"""When a cell has enough runs, one class per file (config group ``stopping``)."""
