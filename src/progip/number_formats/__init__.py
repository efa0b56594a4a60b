"""What a number looks like in hardware, one class per file (config group ``number_format``)."""
