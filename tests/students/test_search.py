"""The search finds the true front where all students can be counted; the predictor learns."""

import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_students_command import SMALL, call

from progip.errors import ProgipError
from progip.models.dynamic.network import Cost
from progip.models.dynamic.resnet import ResNetSpace
from progip.models.dynamic.space import Architecture
from progip.models.dynamic.student import read_architecture
from progip.models.loading import seeded
from progip.students.search import TARGETS, Genes, Predictor, pareto
from progip.students.stages import Search

SPACE = ResNetSpace(
    base=[1, 1], depth=[0, 1], expand=[0.5, 1.0], widths=[4, 8], strides=[1, 2], stem=4, divisor=2,
    width=[0.5, 1.0],
)  # fmt: skip
COST = Cost(SPACE, 3, (1, 8, 8))


def worth(architectures: list[Architecture]) -> np.ndarray:
    """Two sums over the code that want different things."""
    codes = np.array([SPACE.encoded(a) for a in architectures])
    weights = np.random.default_rng(0).normal(size=(codes.shape[1], 2))
    return codes @ weights


def every() -> list[Architecture]:
    highest = Genes(SPACE).highest
    genes = itertools.product(*(range(h + 1) for h in highest))
    return [Genes(SPACE).architecture(np.array(one)) for one in genes]


def nondominated(values: np.ndarray) -> set[tuple[float, float]]:
    better = (values[:, None] >= values[None]).all(2) & (values[:, None] > values[None]).any(2)
    return {tuple(v) for v in values[~better.any(0)].round(9)}


@pytest.mark.parametrize("limits", [{}, {"macs": 8_000.0}, {"macs": 9e3, "parameters": 300.0}])
def test_the_front_is_that_of_all_students(limits: dict[str, float]) -> None:
    macs, parameters = limits.get("macs", np.inf), limits.get("parameters", np.inf)
    cheap = [a for a in every() if COST(a)[0] <= macs and COST(a)[1] <= parameters]
    assert cheap == [a for a in every() if Search(**limits).allows(*COST(a))]
    assert len(cheap) > 10
    found = pareto(SPACE, worth, COST, Search(population=40, generations=25, **limits))
    assert {tuple(v.round(9)) for _, v in found} == nondominated(worth(cheap))
    for architecture, value in found:
        assert COST(architecture)[0] <= macs
        np.testing.assert_allclose(worth([architecture])[0], value)
    assert [v[1] for _, v in found] == sorted((v[1] for _, v in found), reverse=True)


def test_a_limit_that_nothing_meets_is_refused() -> None:
    with pytest.raises(ProgipError, match=r"search\.macs=10: the smallest student has"):
        pareto(SPACE, worth, COST, Search(macs=10))


def test_the_predictor_learns_what_the_code_says() -> None:
    with seeded("predictor"):
        sampled = [SPACE.sample() for _ in range(120)]
    table = pd.DataFrame(worth(sampled), columns=TARGETS)
    table["architecture"] = [json.dumps(a) for a in sampled]
    predictor = Predictor(SPACE, table, Search(layers=2, width=60))
    for quality in predictor.quality.values():
        assert quality["students"] == 24
        assert quality["kendall_tau"] > 0.75
        assert quality["mean_absolute_error"] < quality["of_the_mean"] / 2
    assert predictor(sampled[:3]).shape == (3, 2)


def test_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).resolve().parents[2])
    small = [f"students.search.{o}" for o in ("samples=10", "population=4", "generations=2",
             "layers=1", "width=8", "keep=2", "macs=20_000")]  # fmt: skip
    words = ["search", *SMALL, *small, "--out", str(tmp_path)]
    call(*words)
    shown = capsys.readouterr().out
    assert "found_1" in shown
    found = json.loads((tmp_path / "search/search.json").read_text())
    first = read_architecture(tmp_path / "students/found_1.safetensors")[1]
    assert first in [one["architecture"] for one in found["front"]]
    (measured,) = (tmp_path / "search").glob("measured_*.csv")
    assert len(pd.read_csv(measured)) == 10
    points = pd.read_csv(tmp_path / "search/pareto.csv")
    kinds = points["kind"].value_counts()
    assert kinds["random students"] + kinds.get("random, above the limit", 0) == 10
    assert (tmp_path / "search/pareto.svg").read_text().count("<use") >= 10
    before = measured.stat().st_mtime_ns
    call(*words)  # goes on: nothing is measured twice
    assert measured.stat().st_mtime_ns == before
    assert capsys.readouterr().out == shown
