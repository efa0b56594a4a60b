"""Options of a component that another of its options leaves unread."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from progip.errors import ProgipError

#: option -> (the option that decides whether it is read, the values with which it is)
Readers = Mapping[str, tuple[str, tuple[str, ...]]]


def check_read(component: Any, owner: str, readers: Readers) -> None:
    """Refuse a value that can have no effect: another than the default, of an option not read.

    Args:
        component: a dataclass.
        owner: what to call it in an error.
        readers: of the options that are not always read.

    Raises:
        ProgipError: naming the option, and what it is read with.
    """
    for option in fields(component):
        if option.name not in readers:
            continue
        key, wanted = readers[option.name]
        value, choice = getattr(component, option.name), getattr(component, key)
        if choice not in wanted and value != option.default:
            raise ProgipError(
                f"{owner}: {option.name}={value} has no effect with {key}={choice}; it is read "
                f"with {key}={' or '.join(wanted)}"
            )
