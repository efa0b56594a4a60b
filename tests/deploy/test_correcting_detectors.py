"""Correcting protections in deployed detectors, and in a user's own network."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from guarded import method_of
from tiny_networks import tiny_network
from torch import Tensor, nn

from progip.deploy.calibration import guarded_detector
from progip.deploy.protecting import load_protected, protected_network, save_protected
from progip.deploy.saving import load_detector, save_detector
from progip.engine.corrected import CorrectedPipeline
from progip.errors import ProgipError
from progip.protections.bounded.base import bound_parameters
from progip.protections.bounded.fitact import FitAct
from progip.protections.bounded.ranger_bound import RangerBound
from progip.protections.correcting import Correcting
from progip.protections.progip import ProGIP
from progip.protections.range_restriction import RangeRestriction

SMALL = {"images": 20, "validation": 10}


def protections() -> list[Correcting]:
    return [
        RangeRestriction(name="clip"),
        RangerBound(name="bound", granularity="channel", images=40),
        FitAct(name="fitact", epochs=2, **SMALL),
    ]


def train(images: Tensor) -> list[tuple[Tensor, Tensor]]:
    labels = torch.arange(len(images)) % 4
    return list(zip(images.split(16), labels.split(16), strict=True))


def faulty(network: nn.Module) -> None:
    """A huge value in image 2, a NaN in image 5, behind the first convolution of every pass."""

    def fault(module: nn.Module, given: Tensor, output: Tensor) -> Tensor:
        output = output.clone()
        output[2, 0, 0, 0], output[5, 1, 1, 1] = 1e20, torch.nan
        return output

    next(m for m in network.modules() if isinstance(m, nn.Conv2d)).register_forward_hook(
        fault, prepend=True
    )


@pytest.mark.parametrize("kind", ["odin", "mahalanobis"])
@pytest.mark.parametrize("number", range(3))
def test_a_deployed_detector_alarms_where_a_campaign_does(
    kind: str, number: int, images: Tensor, tmp_path: Path
) -> None:
    network, protection = tiny_network(), protections()[number]
    detector = guarded_detector(
        network, method_of(kind), protection, train=train(images), id_images=images[:24]
    )
    clean = detector(images[:8]).alarm[[2, 5]]
    assert not clean.any() or number == 2  # learnt bounds cut into clean values, too
    pipeline = CorrectedPipeline(detector.network, detector.method, detector.ranges, network)
    faulty(detector.network)
    answer = detector(images[:8])
    seen = pipeline(images[:8])
    assert answer.alarm.tolist() == seen.flagged.tolist()
    assert answer.alarm[[2, 5]].all()
    assert set(answer.stage[answer.alarm]) == {"correction"}
    np.testing.assert_array_equal(answer.score, seen.score.numpy())
    save_detector(detector, tmp_path / "d.safetensors")
    again = load_detector(tmp_path / "d.safetensors", tiny_network(), method_of(kind), protection)
    assert again(images[:8]).alarm[[2, 5]].tolist() == clean.tolist()
    faulty(again.network)
    for one, other in zip(answer, again(images[:8]), strict=True):
        np.testing.assert_array_equal(one, other)


def test_three_lines_and_a_file(images: Tensor, tmp_path: Path) -> None:
    network = tiny_network()
    protected = protected_network(network, protections()[2], train(images))
    save_protected(protected, tmp_path / "p.safetensors")
    loaded = load_protected(tmp_path / "p.safetensors", tiny_network(), protections()[2])
    assert torch.equal(loaded(images), protected(images))
    for call, bound in bound_parameters(protected).items():
        assert torch.equal(bound, bound_parameters(loaded)[call])
    faulty(loaded)
    assert torch.isfinite(loaded(images)).all()


class Functional(nn.Module):
    """relu as a function, as many users write it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 4, 3), nn.Linear(144, 4)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.linear(F.relu(self.conv(x)).flatten(1))
        return result


class Branching(Functional):
    """It cannot be traced."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if x.sum() > 0 else -x)


def test_functions_are_found_by_tracing_or_refused_by_name(images: Tensor, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Functional().eval().requires_grad_(False)
    protected = protected_network(network, protections()[1], train(images))
    assert torch.equal(protected(images), network(images))
    assert [tuple(b.shape) for b in bound_parameters(protected).values()] == [(4, 1, 1)]
    save_protected(protected, tmp_path / "f.safetensors")
    loaded = load_protected(tmp_path / "f.safetensors", network, protections()[1])
    faulty(loaded)
    assert torch.isfinite(loaded(images)).all()
    detector = guarded_detector(
        network, method_of("odin"), protections()[1], train=train(images), id_images=images[:24]
    )
    save_detector(detector, tmp_path / "d.safetensors")
    again = load_detector(tmp_path / "d.safetensors", network, method_of("odin"), protections()[1])
    for one, other in zip(detector(images), again(images), strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(ProgipError, match=r"relu as a function.*cannot be traced"):
        protected_network(Branching().eval(), protections()[1], train(images))


def test_what_does_not_belong_together(images: Tensor, tmp_path: Path) -> None:
    network, (clip, bound, _) = tiny_network(), protections()
    path = tmp_path / "p.safetensors"
    protected = protected_network(network, bound, train(images))
    save_protected(protected, path)
    with pytest.raises(ProgipError, match="no correcting protection in it"):
        save_protected(network, path)
    with pytest.raises(ProgipError, match="other weights"):
        load_protected(path, tiny_network(seed=1), bound)
    with pytest.raises(ProgipError, match=r"other options \(granularity, images\)"):
        load_protected(path, network, RangerBound(name="bound"))
    with pytest.raises(ProgipError, match="another protection"):
        load_protected(path, network, clip)
    path.write_bytes(b"nothing")
    with pytest.raises(ProgipError, match="holds no protected network"):
        load_protected(path, network, bound)
    with pytest.raises(ProgipError, match=r"call network\.eval"):
        protected_network(tiny_network().train(), bound, train(images))
    with pytest.raises(ProgipError, match="no batch of training images"):
        protected_network(network, bound, [])
    detector = guarded_detector(
        protected, method_of("odin"), ProGIP(name="progip"), train=train(images),
        id_images=images[:24],
    )  # fmt: skip
    assert len(detector(images[:3]).alarm) == 3  # detection beside correction
