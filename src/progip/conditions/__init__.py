"""Which images faults are drawn for, one class per file (config group ``condition``)."""
