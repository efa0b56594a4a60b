"""How numbers and names are written: never rounded into a certainty, never breaking a table."""

import math
import re

ABSENT = "–"
NOT_APPLICABLE = "N/A"
MOST_DECIMALS = 8


def count(value: float | None) -> str:
    """A whole number with thousands separators; a dash when there is none.

    >>> count(12345.0)
    '12,345'
    """
    return ABSENT if value is None or math.isnan(value) else f"{int(value):,}"


def percent(fraction: float | None, decimals: int = 2) -> str:
    """A fraction as per cent without the sign: .9974 -> 99.74.

    Only 0 and 1 themselves read 0 and 100. Whatever lies near them gets as many decimals as it
    takes to show its distance with as many digits as `decimals`: 99.9936, 0.00041.

    >>> percent(0.9974), percent(0.9996), percent(1.0)
    ('99.74', '99.960', '100')
    """
    if fraction is None or math.isnan(fraction):
        return ABSENT
    if fraction in (0, 1):
        return f"{100 * fraction:.0f}"
    distance = 100 * min(fraction, 1 - fraction)
    for places in range(decimals, MOST_DECIMALS + 1):
        if round(distance * 10**places) >= 10 ** (decimals - 1):
            return f"{100 * fraction:.{places}f}"
    edge = 10**-MOST_DECIMALS
    return f"<{edge:.{MOST_DECIMALS}f}" if fraction < 0.5 else f">{100 - edge:.{MOST_DECIMALS}f}"


def span(low: float, high: float, decimals: int = 2) -> str:
    """An interval of fractions in per cent: 98.50–98.94.

    >>> span(0.0123, 0.0456)
    '1.23–4.56'
    """
    return f"{percent(low, decimals)}–{percent(high, decimals)}"


def points(fraction: float, decimals: int = 2) -> str:
    """A difference of fractions in percentage points, with its sign; 0.00 only when it is 0.

    >>> points(0.0412)
    '+4.12'
    """
    if fraction == 0:
        return "0"
    text = percent(abs(fraction), decimals)
    return ("-" if fraction < 0 else "+") + text


def p_value(p: float) -> str:
    """p = 0.0312, or p < 0.0001.

    >>> p_value(0.0312), p_value(0.00004)
    ('p = 0.031', 'p < 0.0001')
    """
    return "p < 0.0001" if p < 1e-4 else f"p = {p:#.2g}" if p < 0.995 else "p = 1"


def markdown(text: str) -> str:
    """Text that reads the same in a Markdown table: | _ * and their like escaped, one line."""
    return re.sub(r"([\\`*_|<>\[\]])", r"\\\1", " ".join(text.split()))


def inside(title: str) -> str:
    """A title inside a sentence; abbreviations stay as they are.

    >>> inside("Classification failures"), inside("ID/OOD detection failures")
    ('classification failures', 'ID/OOD detection failures')
    """
    return title if title[:2].isupper() else title[0].lower() + title[1:]
