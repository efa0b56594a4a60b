"""What a number looks like in hardware, one class a file: its bits, and which of them mean what."""
