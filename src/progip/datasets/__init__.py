"""Images to test on, one class per file (config groups ``dataset``, ``ood_dataset``)."""
