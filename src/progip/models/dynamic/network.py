"""The weights that all students share, and the slices of them that a student is."""

import torch
from torch import Tensor, nn
from torch.func import functional_call

from progip.models.dynamic.space import Architecture, Space


class DynamicNetwork(nn.Module):
    """The largest network of a space; every student computes with a part of its weights.

    A student's tensor is the beginning of the shared one of the same name in every dimension: its
    first channels, in its first blocks. A smaller kernel is the middle of the next larger one times
    a learned matrix, the identity at first (Cai et al., Once-for-all, ICLR 2020, appendix B). So
    ``student`` and ``forward`` compute the same. Batch normalisation of a student counts into the
    running statistics of the largest, as the published code does; a student that is to be used has
    its own estimated (``progip.models.dynamic.student.calibrated``).

    Args:
        space: of the students.
        classes, channels: of the dataset.
    """

    def __init__(self, space: Space, classes: int, channels: int) -> None:
        super().__init__()
        self.space, self.classes, self.channels = space, classes, channels
        self.largest = space.network(space.largest(), classes, channels)
        self.matrices = nn.ParameterDict()
        sides = [int(side) for side in space.choices.get("kernel", [])]
        for name, _ in self.largest.named_modules():
            if name.endswith("depthwise"):
                for side in sides[:-1]:
                    self.matrices[_matrix(name, side)] = nn.Parameter(torch.eye(side**2))
        self.active: Architecture | None = None  # the student that ``forward`` computes
        self._empty: dict[str, nn.Module] = {}  # students without weights, by architecture

    def forward(self, images: Tensor, architecture: Architecture | None = None) -> Tensor:
        """Logits (n, classes) of a student; None: of the active one, or of the largest."""
        architecture = architecture or self.active
        if architecture is None:
            logits: Tensor = self.largest(images)
            return logits
        empty = self.empty(architecture)
        empty.train(self.training)
        found: Tensor = functional_call(empty, self.slices(architecture), (images,))
        return found

    def slices(self, architecture: Architecture) -> dict[str, Tensor]:
        """The tensors of a student by their names, as views of the shared ones or made of them."""
        shared = {**dict(self.largest.named_parameters()), **dict(self.largest.named_buffers())}
        wanted = self.empty(architecture).state_dict()
        return {name: self._slice(name, shared[name], t.shape) for name, t in wanted.items()}

    def student(self, architecture: Architecture) -> nn.Module:
        """The static network with copies of its slices, in evaluation mode."""
        place = next(self.parameters()).device
        found = self.empty(architecture).to_empty(device=place)
        self._empty.pop(str(architecture))
        found.load_state_dict({k: v.detach() for k, v in self.slices(architecture).items()})
        return found.eval()

    def empty(self, architecture: Architecture) -> nn.Module:
        """The static network of an architecture without memory for its weights."""
        key = str(architecture)
        if key not in self._empty:
            if len(self._empty) >= 256:
                self._empty.clear()
            with torch.device("meta"):
                self._empty[key] = self.space.network(architecture, self.classes, self.channels)
        return self._empty[key]

    def _slice(self, name: str, shared: Tensor, shape: torch.Size) -> Tensor:
        if shared.shape == shape:
            return shared
        part = shared[tuple(slice(size) for size in shape[:2])]
        if part.shape == shape:
            return part
        layer = name.removesuffix(".weight")  # the kernel, then, is a smaller one
        for side in sorted((int(s) for s in self.space.choices["kernel"]), reverse=True)[1:]:
            edge = (part.shape[2] - side) // 2
            middle = part[:, :, edge : edge + side, edge : edge + side].flatten(2)
            part = (middle @ self.matrices[_matrix(layer, side)].T).unflatten(2, (side, side))
            if part.shape == shape:
                break
        return part


def _matrix(layer: str, side: int) -> str:
    """The name of the matrix that makes a layer's kernels of this side."""
    return f"{layer}.{side}".replace(".", "_")


@torch.no_grad()
def sort_hidden(network: DynamicNetwork) -> None:
    """Put the hidden channels of every block in the order of their importance, largest first.

    Importance is the L1 norm of the weights that take a channel in (Once-for-all, section 3.3).
    The largest network computes what it did, but for the order of sums.
    """
    for module in network.largest.modules():
        for makers, taker in module.hidden() if hasattr(module, "hidden") else []:  # type: ignore[operator]
            order = taker.weight.abs().sum((0, 2, 3)).argsort(descending=True, stable=True)
            taker.weight.copy_(taker.weight[:, order])
            for maker in makers:
                for tensor in maker.state_dict(keep_vars=True).values():
                    if tensor.ndim:  # not the number of batches
                        tensor.copy_(tensor[order])


class Cost:
    """Multiply-accumulates of one image, and parameters, of every student of a space.

    A layer has as many output pixels in a student as in the largest network, so only its weights
    differ; no image is computed.

    Args:
        shape: (channels, height, width) of an image.
    """

    def __init__(self, space: Space, classes: int, shape: tuple[int, ...]) -> None:
        self._space, self._classes, self._channels = space, classes, shape[0]
        self._pixels: dict[str, int] = {}
        self._known: dict[str, tuple[int, int]] = {}
        network = self._network(space.largest())
        for name, module in network.named_modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.register_forward_hook(
                    lambda m, i, out, name=name: self._pixels.update({name: out[0, 0].numel()})
                )
        network(torch.empty(1, *shape, device="meta"))

    def __call__(self, architecture: Architecture) -> tuple[int, int]:
        """Multiply-accumulates of convolutions and linear layers, and parameters."""
        key = str(architecture)
        if key in self._known:
            return self._known[key]
        own = dict(self._network(architecture).named_parameters())
        macs = sum(
            own[f"{name}.weight"].numel() * pixels
            for name, pixels in self._pixels.items()
            if f"{name}.weight" in own
        )
        self._known[key] = macs, sum(parameter.numel() for parameter in own.values())
        return self._known[key]

    def _network(self, architecture: Architecture) -> nn.Module:
        with torch.device("meta"):
            return self._space.network(architecture, self._classes, self._channels).eval()
