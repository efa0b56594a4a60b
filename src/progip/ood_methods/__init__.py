"""Out-of-distribution detectors, one class per file (config group ``ood_method``)."""
