"""From settings to rows: preparation, planning, execution, judging, one cell at a time."""
