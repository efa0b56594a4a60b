"""What to say of a name that does not exist."""

import difflib


def existing(key: str, names: list[str]) -> str:
    """What there is, the closest names first."""
    close = difflib.get_close_matches(key, names, n=3)
    hint = f"Did you mean {' or '.join(close)}? " if close else ""
    return f"{hint}There are: {', '.join(sorted(names))}"
