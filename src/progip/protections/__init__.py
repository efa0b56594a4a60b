"""What watches or corrects a network, one class per file (config group ``protection``)."""
