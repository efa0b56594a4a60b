"""The detector with its range checks as one pure function of a batch, for every executor."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from progip.engine.ranges import RangeChecks, RangeTable
from progip.engine.stages import Looked, looked_at
from progip.models.calls import Call, watch_calls
from progip.ood_methods.base import Detection, EnterPass, OODMethod, no_pass
from progip.passes import is_forward
from progip.probes import DetectionProbe, Observation, Probe, RangeProbe

# Its fused kernel is taken only where no gradient is needed and never under tracing: two passes of
# one detector would use different arithmetic, and hooks inside attention would not fire.
torch.backends.mha.set_fastpath_enabled(False)


def probed(
    probes: Sequence[Probe], detection: Detection, outputs: Mapping[str, Mapping[Call, Tensor]]
) -> dict[str, Tensor]:
    """What probes measure, by name.

    Args:
        outputs: of the layers that each of them looks at, by name of the probe.
    """
    found = (
        (p.name, p.measure_layers(outputs[p.name]) if p.name in outputs else p.measure(detection))
        for p in probes
    )
    return {name: tensor for name, tensor in found if tensor is not None}


class Pipeline:
    """``pipeline(images) -> Observation``: network, OOD method and range observation together.

    Args:
        probes: what is observed beside the outcome of the detector and its ranges.

    Attributes:
        probes: all of them, in the order of their columns.
        checks: make the range excesses.
    """

    def __init__(
        self,
        network: nn.Module,
        method: OODMethod,
        ranges: RangeTable,
        probes: Sequence[Probe] = (),
    ) -> None:
        self.network = network
        self.method = method
        self.ranges = ranges
        self.probes: tuple[Probe, ...] = (DetectionProbe(), RangeProbe(ranges.sites), *probes)
        self.checks = RangeChecks(ranges)
        self._looked: dict[str, Looked] = {}

    def looked_at(self, images: Tensor) -> dict[str, Looked]:
        """The layers that probes look at, by name of the probe; found when first asked for."""
        wanted = [probe for probe in self.probes if probe.layers is not None]
        if len(self._looked) < len(wanted):
            two = images[torch.arange(2, device=images.device) % len(images)]
            for probe in wanted:
                owner = f"probe '{probe.name}'"
                found = looked_at(owner, self.network, two, probe.layers or "")
                self._looked[probe.name] = found
        return self._looked

    @contextmanager
    def watching_layers(
        self, images: Tensor, enter: EnterPass
    ) -> Iterator[tuple[dict[str, dict[Call, Tensor]], EnterPass]]:
        """Keep what the layers that probes look at give in the first forward pass made inside.

        Yields:
            the outputs (B, ...) by name of the probe, and whom passes are to be announced to.
        """
        looked = self.looked_at(images)
        outputs: dict[str, dict[Call, Tensor]] = {name: {} for name in looked}
        first = False

        def enter_pass(name: str) -> None:
            nonlocal first
            first = name == "first_forward"
            enter(name)

        def keep(site: Call, _: Any, output: Tensor) -> None:
            for name, where in looked.items() if first else ():
                if site in where.axis:
                    outputs[name][site] = where.axis[site].rows(output.detach())

        layers = {layer for where in looked.values() for layer in where.layers}
        with watch_calls(self.network, layers, keep) if layers else nullcontext():
            yield outputs, enter_pass

    def __call__(self, images: Tensor, enter: EnterPass = no_pass) -> Observation:
        first: dict[Call, Any] = {}
        later: dict[Call, Any] = {}
        current: dict[Call, Any] = {}

        def enter_pass(name: str) -> None:
            nonlocal current
            current = {}
            if is_forward(name):
                current = first if name == "first_forward" else later
            enter(name)

        def measure(site: Call, _: Any, output: Tensor) -> None:
            if site in self.ranges.source:
                found = self.checks.measured(site, output.detach())
                known = site in current
                current[site] = self.checks.wider(current[site], found) if known else found

        with (
            self.watching_layers(images, enter_pass) as (outputs, announce),
            watch_calls(self.network, self.ranges.layers, measure),
        ):
            detection = self.method.detect(self.network, images, announce)
        return Observation(
            detection.logits,
            detection.gradient.abs().flatten(1).amax(1),
            detection.score,
            self.checks.excess(first, images),
            self.checks.excess(later, images),
            measured=probed(self.probes, detection, outputs),
        )
