"""What a fault is and where it lies, one class per file (config group ``fault_model``)."""
