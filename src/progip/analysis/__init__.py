"""From stored rows to counts, estimates and comparisons; renders nothing."""
