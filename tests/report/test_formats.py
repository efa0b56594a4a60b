import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tabulate import tabulate

from progip.report import formats


@pytest.mark.parametrize(
    ("fraction", "text"),
    [
        (0, "0"),
        (1, "100"),
        (0.9974, "99.74"),
        (0.5, "50.00"),
        (0.9996, "99.960"),
        (0.99996, "99.9960"),
        (0.999999, "99.99990"),
        (0.0000041, "0.00041"),
        (1e-15, "<0.00000001"),
        (1 - 1e-15, ">99.99999999"),
        (math.nan, "–"),
        (None, "–"),
    ],
)
def test_percent(fraction: float | None, text: str) -> None:
    assert formats.percent(fraction) == text


@given(fraction=st.floats(0, 1), decimals=st.integers(1, 3))
def test_only_certainties_read_0_or_100(fraction: float, decimals: int) -> None:
    text = formats.percent(fraction, decimals)
    if 0 < fraction < 1 and text[0] not in "<>":
        assert 0 < float(text) < 100
        assert float(text) == pytest.approx(100 * fraction, abs=0.6 * 10**-decimals)


def test_counts_points_and_p_values() -> None:
    assert formats.count(2_400_000) == "2,400,000"
    assert formats.count(math.nan) == formats.count(None) == "–"
    assert [formats.points(x) for x in (0.0017, -0.05, 0)] == ["+0.17", "-5.00", "0"]
    assert [formats.p_value(p) for p in (0.3002, 1e-9, 1.0)] == ["p = 0.30", "p < 0.0001", "p = 1"]


def test_markdown_keeps_names_whole() -> None:
    row = [[formats.markdown("a|b_c*d\ne")]]
    table = tabulate(row, ["name"], tablefmt="pipe", disable_numparse=True)
    assert table.splitlines()[-1].strip() == r"| a\|b\_c\*d e |"
