"""Suppression of neurons whose difference to their neighbour is not what training showed."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from progip.described import WORKS
from progip.errors import ProgipError
from progip.models.calls import Call, hook_calls, watch_calls
from progip.protections.correcting import (
    Correcting,
    Record,
    State,
    by_call,
    check_fitted,
    key_of,
    shared_copy,
)
from progip.protections.neuron_gradients.activation_check import (
    TOLERANCE,
    exact_deviation,
    remainder,
)
from progip.protections.neuron_gradients.checksum import Checksum
from progip.protections.neuron_gradients.differences import circular_differences, suppressed
from progip.protections.neuron_gradients.layers import Layer, find_layers
from progip.protections.neuron_gradients.limits import Limits, RowConstant
from progip.protections.neuron_gradients.options import check_options
from progip.protections.neuron_gradients.running import RunningMoments, student_quantile
from progip.protections.placement import (
    ACTIVATIONS,
    extremes,
    nothing_to_check,
    require_images_first,
)

#: added to every threshold, as a share of the largest clean difference of the layer: for rounding,
#: which other batch sizes change, and for neurons that never differed in training
SLACK = 1e-5


@dataclass(kw_only=True)
class GradientStatistics(Correcting):
    """Suppression of values whose neuron gradient is anomalous.

    Source: Amarnath, Mejri, Ma, Chatterjee: Error resilient deep neural networks using neuron
    gradient statistics, NeurIPS ML Safety workshop 2022.

    In every layer but the last: y[i] is set to 0 where g[i] = y[i] - y[i-1] is anomalous, y being
    the activation's output, i circular over channels at each pixel (convolution) or over features
    (linear). Statistics of g come from clean training images.

    Attributes:
        trigger: ``detected``, only in rows in which a detector fired in this layer (the source);
            ``always``.
        threshold: g is anomalous where |g| > (1 + margin) max |g| in training (``max_clean``), or
            |g - mean| > t sd sqrt(1 + 1/n) with t = k (``sigma_k``) or the two-sided Student
            quantile of ``alpha`` with n - 1 degrees of freedom (``alpha``).
        margin, k, alpha: see ``threshold``; each is read with its own threshold only.
        granularity: what shares one threshold: every ``neuron``, a ``channel``, the ``layer``.
        locate: ``all_flagged``, ``first_of_run`` or ``iterative`` (see ``suppressed``).
        rounds: of ``iterative``.
        checksum: detector on MAC outputs: one ``sum`` an image (the source), at every ``pixel``, or
            ``none``.
        checksum_weights: ``ones`` or ``index`` (see ``Checksum``).
        checksum_margin: its threshold is (1 + margin) times the largest clean deviation.
        activation_check: detector on activations: ``exact``, y equals the activation of its input
            computed again; ``literal``, y mod x = 0 of the source, for ReLU only; ``none``.

    NaN and infinity are certain errors: they are zeroed in every row.

    Raises:
        ProgipError: an option has a wrong value.
    """

    sentence: ClassVar[str] = (
        "Neuron gradient statistics set neurons to zero whose difference to their neighbour "
        "is not what clean training images showed, and raise an alarm where a checksum or an "
        "activation check fired [Amarnath]."
    )
    references: ClassVar[Mapping[str, str]] = {
        "Amarnath": WORKS["Amarnath"],
    }

    trigger: str = "detected"
    threshold: str = "max_clean"
    margin: float = 0.1
    k: float = 6.0
    alpha: float = 1e-6
    granularity: str = "neuron"
    locate: str = "all_flagged"
    rounds: int = 3
    checksum: str = "sum"
    checksum_weights: str = "ones"
    checksum_margin: float = 1.0
    activation_check: str = "exact"

    def __post_init__(self) -> None:
        check_options(self)

    @torch.no_grad()
    def fit(
        self, network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]
    ) -> dict[str, Tensor]:
        """By layer output: count, mean, squares and largest of g; by MAC: largest deviation.

        float64; beside them ``example``, an image, which shows ``protect`` the layers again.
        """
        layers: list[Layer] = []
        moments: dict[Call, RunningMoments] = {}
        checks: dict[Call, Checksum] = {}
        largest: dict[Call, Tensor] = {}
        example, images = torch.empty(0), 0
        record = Record()

        def seen(call: Call, given: Tensor, output: Tensor) -> None:
            if call in checks:
                deviation = checks[call].deviation(given, output).max()
                largest[call] = torch.maximum(largest.get(call, deviation), deviation)
            if call in moments:
                y = record.by_row(output)
                moments[call].add(circular_differences(y, moments[call].axis))

        for batch, _ in batches:
            if not layers:
                example = batch[:1]
                layers = self._layers(network, example)
                places = [call for x in layers for call in (x.output, *x.macs)]
                require_images_first(self.name, network, places, batch)
                moments = {x.output: RunningMoments(self.granularity, x.axis) for x in layers}
                checks = self._checks(network, layers)
            names = {layer for layer, _ in (*moments, *checks)}
            with watch_calls(network, names, seen, record.start):
                network(batch)
            images += len(batch)
        check_fitted(images, self.name, 2)
        state = {"example": example.clone()}
        for call, found in moments.items():
            state[key_of(call, "count")] = torch.tensor(found.count)
            for quantity in ("mean", "squares", "largest"):
                state[key_of(call, quantity)] = getattr(found, quantity)
        state |= {key_of(call, "deviation"): found for call, found in largest.items()}
        for key, tensor in state.items():
            if not torch.isfinite(tensor).all():
                raise ProgipError(
                    f"layer '{key.rpartition('#')[0]}': its clean outputs are not finite on the "
                    "training images; the weights or the normalisation are wrong"
                )
        return state

    def protect(self, network: nn.Module, state: State) -> nn.Module:
        result, record = shared_copy(network)
        device = next((p.device for p in network.parameters()), torch.device("cpu"))
        layers = {x.output: x for x in self._layers(network, state["example"].to(device))}
        limits = self._limits(network, state, device)
        deviations = by_call(state, "deviation", network, self.name)
        checks = self._checks(network, list(layers.values()))
        if limits.keys() != layers.keys() or deviations.keys() != checks.keys():
            raise ProgipError(
                f"protection '{self.name}': its state was learnt from another network or with "
                "other options"
            )
        tau = {c: (1 + self.checksum_margin) * d.item() for c, d in deviations.items()}
        modules = dict(result.named_modules())
        fired: dict[Call, Tensor] = {}

        def start(images: Tensor) -> None:
            fired.clear()
            record.start(images)

        def after(call: Call, given: Tensor, output: Tensor) -> Tensor | None:
            if call in checks:
                deviation = checks[call].deviation(given, output)
                fired[call] = _exceeds(record.by_row(deviation), tau[call])
                record.flag(fired[call])
            if call not in layers:
                return None
            layer = layers[call]
            rows = [fired[mac] for mac in layer.macs if mac in fired]
            if call not in layer.macs:
                rows += self._activation_fired(modules[call[0]], given, output, record)
            return self._mended(output, limits[call], layer, rows, record)

        record.calls = len(layers)
        hook_calls(result, {layer for layer, _ in (*layers, *checks)}, after, start)
        with torch.no_grad():  # encodes what is encoded at the first call
            result(state["example"].to(device).repeat(2, 1, 1, 1))
        return result

    def _layers(self, network: nn.Module, example: Tensor) -> list[Layer]:
        if not any(isinstance(module, ACTIVATIONS) for module in network.modules()):
            raise nothing_to_check(f"protection '{self.name}'", network)
        layers = find_layers(network, example.repeat(2, 1, 1, 1))
        if not layers:
            raise ProgipError(
                f"protection '{self.name}': the network has no layer before its last whose "
                "activation is a module"
            )
        return layers

    def _checks(self, network: nn.Module, layers: list[Layer]) -> dict[Call, Checksum]:
        if self.checksum == "none":
            return {}
        modules = dict(network.named_modules())
        macs = dict.fromkeys(mac for layer in layers for mac in layer.macs)
        return {
            mac: Checksum(modules[mac[0]], self.checksum_weights, self.checksum == "pixel")
            for mac in macs
        }

    def _limits(self, network: nn.Module, state: State, device: torch.device) -> dict[Call, Limits]:
        """By layer output: what g may be."""
        found: dict[Call, Limits] = {}
        for call, count in by_call(state, "count", network, self.name).items():
            n = int(count)
            mean, squares, largest = (
                state[key_of(call, quantity)] for quantity in ("mean", "squares", "largest")
            )
            if self.threshold == "max_clean":
                centre, half = None, (1 + self.margin) * largest
            else:
                t = self.k if self.threshold == "sigma_k" else student_quantile(self.alpha, n)
                centre = RowConstant(mean.float().to(device))
                half = t * (squares / (n - 1)).sqrt() * math.sqrt(1 + 1 / n)
            half = half + SLACK * largest.max()
            found[call] = Limits(centre, RowConstant(half.float().to(device)))
        return found

    def _activation_fired(
        self, module: nn.Module, x: Tensor, y: Tensor, record: Record
    ) -> list[Tensor]:
        if self.activation_check == "exact":
            deviation, tolerance = exact_deviation(module, x.detach(), y.detach()), 0.0
        elif self.activation_check == "literal" and isinstance(module, nn.ReLU):
            deviation, tolerance = remainder(x.detach(), y.detach()), TOLERANCE
        else:
            return []
        fired = _exceeds(record.by_row(deviation), tolerance)
        record.flag(fired)
        return [fired]

    def _mended(
        self, output: Tensor, limits: Limits, layer: Layer, fired: list[Tensor], record: Record
    ) -> Tensor | None:
        wanted = triggered = None
        if self.trigger == "detected":
            triggered = torch.stack([torch.zeros_like(record.flagged), *fired]).any(0)
            least, most = extremes(record.by_row(output.detach()))
            wanted = triggered | ~(torch.isfinite(least) & torch.isfinite(most))

        def mended(y: Tensor, rows: Any) -> tuple[Tensor, Tensor]:
            finite = torch.nan_to_num(y, 0.0, 0.0, 0.0)
            gate = None
            if triggered is not None:
                gate = triggered[rows].to(y.dtype).view(-1, *[1] * (y.dim() - 1))
            wrong = suppressed(
                finite.detach(),
                lambda differences: limits.anomalous(differences, gate),
                layer.axis,
                self.locate,
                self.rounds,
            )
            result = torch.where(wrong, 0.0, finite)  # keeps the memory order, in a graph, too
            return result, result.detach() != y.detach()

        found: Tensor | None = record.mend(layer.output, output, wanted, mended)
        return found


def _exceeds(deviation: Tensor, limit: float) -> Tensor:
    """(n,) bool: rows of (n, ...) not everywhere within the limit; NaN is not within it."""
    return ~(deviation.amax(tuple(range(1, deviation.dim()))) <= limit)
