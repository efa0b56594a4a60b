"""The small network of a FACER-like protection: its inputs, its training, its answer."""

import logging
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from progip.errors import ProgipError
from progip.protections.bounded.clock import Clock
from progip.storage.whole_files import Checkpoint

log = logging.getLogger(__name__)

CLIP = 10.0
ROWS = 32  # at a time, padded: the last bits of a row do not depend on how many there are
#: of a channel that is the same for all clean images: any other value is far out
LEAST_STD = 1e-6
WEIGHTS = ("hidden.weight", "hidden.bias", "out.weight", "out.bias")


class TraceNetwork:
    """Standardised traces -> one hidden layer of ReLUs -> classes, the first of which is clean.

    Args:
        state: ``mean``, ``std`` (D,) of clean traces and WEIGHTS, all float32.
    """

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        self._state = {name: tensor.contiguous() for name, tensor in state.items()}

    @property
    def width(self) -> int:
        """D, the number of traces."""
        return len(self._state["mean"])

    def state(self) -> dict[str, Tensor]:
        return dict(self._state)

    def inputs(self, traces: Tensor) -> Tensor:
        """(n, D + 1): traces (n, D) standardised and clipped; last, 1 where one is not finite."""
        scaled = (traces - self._state["mean"]) / self._state["std"]
        wrong = ~torch.isfinite(traces)
        scaled = scaled.clamp(-CLIP, CLIP).masked_fill(wrong, CLIP)
        return torch.cat([scaled, wrong.any(1, keepdim=True).to(scaled.dtype)], 1)

    @torch.no_grad()
    def log_odds(self, traces: Tensor) -> Tensor:
        """(n,) float32: log of the odds of the last class, of traces (n, D) float32."""
        weights = {name: self._state[name].double() for name in WEIGHTS}
        found = []
        for part in traces.split(ROWS):
            padded = F.pad(part, (0, 0, 0, ROWS - len(part)))
            z = _logits(self.inputs(padded).double(), weights)[: len(part)]
            found.append(z[:, -1] - torch.logsumexp(z[:, :-1], 1))
        return torch.cat(found).float() if found else torch.zeros(0)

    @classmethod
    def trained(
        cls,
        owner: str,
        traces: np.ndarray,
        labels: np.ndarray,
        *,
        clean: np.ndarray,
        classes: int,
        hidden: int,
        epochs: int,
        batch_size: int,
        learning_rate: float,
        seed: int,
        checkpoint: Checkpoint,
    ) -> "TraceNetwork":
        """Train on rows drawn with replacement, every class alike; as many an epoch as there are.

        Args:
            traces: (n, D) float32.
            labels: (n,) from 0 to ``classes`` - 1.
            clean: (n,) bool, the rows to standardise by: faults that change no outcome may still
                blow up a trace, and a deviation of theirs would make all clean rows alike.
            checkpoint: with it, an interrupted training ends as one that ran through.

        Raises:
            ProgipError: a class has no row.
        """
        counts = np.bincount(labels, minlength=classes)
        if not counts.all():
            raise ProgipError(
                f"protection '{owner}': no run of its training is of class "
                f"{int(np.flatnonzero(counts == 0)[0])} of {classes}; raise protection.runs, or "
                "choose other protection.layers and protection.bits"
            )
        usual = torch.from_numpy(traces[clean])
        std = usual.std(0, correction=0).clamp(min=LEAST_STD)
        network = cls({"mean": usual.mean(0), "std": std})
        x, y = network.inputs(torch.from_numpy(traces)), torch.from_numpy(labels.astype(np.int64))
        draw = torch.Generator().manual_seed(seed)
        weights = _initial(x.shape[1], hidden, classes, draw)
        optimiser = torch.optim.Adam(weights.values(), lr=learning_rate)
        found = checkpoint.load() or {"epoch": 0}
        if found["epoch"]:
            for name, weight in weights.items():
                weight.data.copy_(found["weights"][name])
            optimiser.load_state_dict(found["optimiser"])
        chances = torch.from_numpy(1.0 / counts)[y]
        clock = Clock(found["epoch"], epochs)
        for epoch in range(found["epoch"], epochs):
            draw.manual_seed(seed * epochs + epoch + 1)
            order = torch.multinomial(chances, len(y), replacement=True, generator=draw)
            total = 0.0
            for part in order.split(batch_size):
                with torch.enable_grad():
                    loss = F.cross_entropy(_logits(x[part], weights), y[part])
                    optimiser.zero_grad()
                    loss.backward()
                optimiser.step()
                total += float(loss.detach()) * len(part)
            kept = {name: weight.detach().clone() for name, weight in weights.items()}
            state = {"weights": kept, "optimiser": optimiser.state_dict(), "epoch": epoch + 1}
            checkpoint.save(state)
            log.info(
                "protection %s: epoch %d of %d, mean loss %.4f, %s",
                owner, epoch + 1, epochs, total / len(y), clock.left(epoch + 1),
            )  # fmt: skip
        learnt = {name: weight.detach() for name, weight in weights.items()}
        return cls({**network.state(), **learnt})


def _logits(x: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
    hidden = F.linear(x, weights["hidden.weight"], weights["hidden.bias"]).relu()
    return F.linear(hidden, weights["out.weight"], weights["out.bias"])


def _initial(inputs: int, hidden: int, classes: int, draw: torch.Generator) -> dict[str, Tensor]:
    """Weights and biases uniform within 1 / sqrt(inputs of the unit), as ``nn.Linear`` has them."""
    shapes = [(hidden, inputs), (hidden,), (classes, hidden), (classes,)]
    fan_in = [inputs, inputs, hidden, hidden]
    return {
        name: ((2 * torch.rand(shape, generator=draw) - 1) / fan**0.5).requires_grad_(True)
        for name, shape, fan in zip(WEIGHTS, shapes, fan_in, strict=True)
    }
