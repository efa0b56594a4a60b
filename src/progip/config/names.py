"""What to say of a name that does not exist, and of a value of the wrong kind."""

import difflib
from typing import Any

NO_DEFAULTS = (
    "the campaign file has no defaults, so there is no cell to run; begin it with the lines "
    "'defaults:', '  - config' and '  - _self_'"
)


def existing(key: str, names: list[str]) -> str:
    """What there is, the closest names first."""
    close = difflib.get_close_matches(key, names, n=3)
    hint = f"Did you mean {' or '.join(close)}? " if close else ""
    return f"{hint}There are: {', '.join(sorted(names))}"


def wrong_value(error: Exception, value: Any) -> str:
    """OmegaConf's first line, or how a list is written where one value was given."""
    line = str(error).splitlines()[0]
    if "is not a ListConfig" not in line:
        return line
    return a_list("null" if value is None else str(value))


def a_list(value: str) -> str:
    """How a list of one value is written."""
    return f"needs a list, not one value: give [{value}] (quoted in a shell: '[{value}]')"
