"""Confidence, best five and loss against PyTorch's own, and what protections see of them."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from progip.errors import ProgipError
from progip.probes import Observation, Probe, probes_named
from progip.probes.confidence import Confidence
from progip.probes.loss import Loss
from progip.probes.needs import check_needs
from progip.probes.top_five import TopFive
from progip.records import NO_CLASS, OOD_LABEL, golden_schema

LOGITS = arrays(np.float32, (7, 8), elements=st.floats(-50, 50, width=32))


def seen(logits: Tensor, labels: Tensor | None = None) -> Observation:
    nothing = torch.zeros(len(logits), 0)
    zeros = torch.zeros(len(logits))
    return Observation(logits, zeros, zeros.double(), nothing, nothing, labels=labels)


@given(LOGITS)
def test_confidence_is_pytorchs_softmax(values: np.ndarray) -> None:
    logits = torch.from_numpy(values)
    found = Confidence().columns(seen(logits), 6)
    expected = torch.softmax(logits.double(), 1).sort(1, descending=True).values[:6]
    np.testing.assert_allclose(found["confidence"], expected[:, 0], rtol=1e-12)
    lead = 100 * (expected[:, 0] - expected[:, 1])
    np.testing.assert_allclose(found["top2diff"], lead, atol=1e-10)


@given(LOGITS)
def test_loss_is_pytorchs_cross_entropy(values: np.ndarray) -> None:
    logits, labels = torch.from_numpy(values), torch.arange(7) % 8
    found = Loss().columns(seen(logits, labels), 6)["loss"]
    for row in range(6):
        expected = F.cross_entropy(logits[row : row + 1].double(), labels[row : row + 1])
        assert found[row] == pytest.approx(float(expected), rel=1e-12)


def test_loss_without_a_label_is_nan() -> None:
    logits = torch.randn(3, 8)
    assert np.isnan(Loss().columns(seen(logits, torch.full((3,), OOD_LABEL)), 3)["loss"]).all()
    assert np.isnan(Loss().columns(seen(logits), 3)["loss"]).all()


@given(LOGITS)
def test_the_best_five_are_numpys(values: np.ndarray) -> None:
    found = TopFive().columns(seen(torch.from_numpy(values)), 7)["top_five"]
    order = np.lexsort((np.tile(np.arange(8), (7, 1)), -values))
    np.testing.assert_array_equal(found, order[:, :5])


def test_what_is_not_finite_is_not_fine() -> None:
    logits = torch.zeros(3, 8)
    logits[0, 2], logits[1, 3], logits[2, 4] = torch.nan, torch.inf, -torch.inf
    observation = seen(logits, torch.tensor([0, 0, 4]))
    found = Confidence().columns(observation, 3)
    assert np.isnan(found["confidence"]).tolist() == [True, True, False]
    assert np.isnan(found["top2diff"]).tolist() == [True, True, False]
    loss = Loss().columns(observation, 3)["loss"]
    assert np.isfinite(loss).tolist() == [False, False, False]
    best = TopFive().columns(observation, 3)["top_five"]
    assert (best[0] == NO_CLASS).all()
    assert best[1, 0] == 3
    assert 4 not in best[2]


def test_best_five_of_few_classes_are_refused() -> None:
    TopFive().check(6)
    with pytest.raises(ProgipError, match="'top_five' of 3 classes"):
        TopFive().check(3)


@pytest.mark.parametrize("probe", [Loss(), Confidence()])
def test_a_protection_does_not_see_what_is_made_with_the_label(probe: Probe) -> None:
    (name, *_) = [column.name for column in probe.produces]
    on = (*probes_named([probe.name]),)
    check_needs("outcome 'x'", [name], "odin", ["score"], on, truth=True)
    if name == "loss":
        with pytest.raises(ProgipError, match="protection 'x' looks at loss"):
            check_needs("protection 'x'", [name], "odin", ["score"], on)
    else:
        check_needs("protection 'x'", [name], "odin", ["score"], on)
    marked = golden_schema(probe.produces).field(name).metadata
    assert (marked is not None) == (name == "loss")
