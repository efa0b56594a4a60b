"""Memory that Python has freed and the C library keeps."""

import ctypes


def give_back_memory() -> None:
    """Return freed memory to the system where the C library can (glibc); tracing frees a lot."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return
    trim(0)
