"""What counts as a failure, one class per file (config group ``outcome``)."""
