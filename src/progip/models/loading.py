"""Makes a network ready for campaigns: architecture, weights, evaluation mode, checks."""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields

import torch
from torch import nn

from progip.devices import usable_device
from progip.errors import ProgipError
from progip.models.base import Model
from progip.models.checking import check_layers, other_types
from progip.models.fitting import COUNTER, check_kinds, without_shared_prefix
from progip.models.heads.base import check_last
from progip.models.weight_files import locate, read_state_dict

RANDOM = "random"
PUBLISHED = "published"
SHOWN_KEYS = 4


def load_network(
    spec: Model,
    device: torch.device | str = "cpu",
    *,
    image_shape: tuple[int, int, int] | None = None,
    channels_last: bool = False,
) -> nn.Module:
    """The network of a model with its weights, as campaigns use it.

    In evaluation mode, parameters without gradient, no module works in place, every activation,
    pool and reshape a module of its own. The global random generators stay as they were.

    Args:
        spec: which model, and where its weights are.
        device: where to put it.
        image_shape: (channels, height, width) of the images it will see: tried on two black ones.
        channels_last: the memory format of its weights and of what it will see.

    Raises:
        ProgipError: where the weights are missing, damaged, hold NaN or infinity, are of another
            kind of numbers or belong to another architecture, the device is not there, the network
            cannot take the images, or one of its layers cannot be hooked.
    """
    place = usable_device(device)
    network, head = network_and_head(spec, start=spec.weights == RANDOM)
    check_layers(network, f"model '{spec.name}'")
    if spec.weights == PUBLISHED:
        _put(network, spec.published_weights(), "the published weights", spec)
    elif spec.weights != RANDOM:
        path = locate(spec)
        _put(network, read_state_dict(path), str(path), spec)
    network.eval().requires_grad_(False)
    for module in network.modules():
        if getattr(module, "inplace", False) is True:
            module.inplace = False  # type: ignore[assignment]  # a bool, as just checked
    if spec.head is not None:
        if image_shape is not None:
            check_last(network, head, torch.zeros(2, *image_shape))
        spec.head.finish(network, head)
    network = _prepared(network.to(place), spec, image_shape)
    order = torch.channels_last if channels_last else torch.contiguous_format
    if channels_last:
        network = network.to(memory_format=order)  # type: ignore[call-overload]
    if image_shape is not None:
        _try(network, spec, image_shape, order)
    return network


def seeded_network(spec: Model, seed: int = 0) -> nn.Module:
    """The architecture with initial weights that depend on its name and the seed alone."""
    return network_and_head(spec, seed)[0]


def network_and_head(spec: Model, seed: int = 0, *, start: bool = True) -> tuple[nn.Module, str]:
    """The same, and where its head is; "" where it keeps its own last layer.

    Args:
        start: False where weights follow: a head reads nothing that they would replace.
    """
    with seeded(f"{spec.name}/{seed}"):
        network = spec.network()
        if spec.head is None:
            return network, ""
        return network, spec.head.attach(network, spec.classes, spec.feature_layer, start=start)


def put_start(network: nn.Module, spec: Model, head: str) -> None:
    """Put the weights of ``spec.weights`` into a network that is to be trained further.

    Args:
        network: changed in place.
        head: the name of the head, which keeps what it starts with, as its part of the file is of
            the layer it replaces; "" for all.

    Raises:
        ProgipError: as ``load_network`` for weights that are missing or do not fit.
    """
    if spec.weights == PUBLISHED:
        given, where = dict(spec.published_weights()), "the published weights"
    else:
        path = locate(spec)
        given, where = read_state_dict(path), str(path)
    if head:
        own = network.state_dict()
        given = without_shared_prefix(given, own)
        given = {k: v for k, v in given.items() if not k.startswith(f"{head}.")}
        given |= {k: v for k, v in own.items() if k.startswith(f"{head}.")}
    _put(network, given, where, spec)


@contextmanager
def seeded(key: str, device: torch.device | str = "cpu") -> Iterator[None]:
    """Within it random numbers start from a hash of the key; afterwards all is as before."""
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big", signed=True)
    cuda = [device] if torch.device(device).type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        # not torch.manual_seed, which would reseed the CUDA generators that are not put back
        torch.default_generator.manual_seed(seed)
        if cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


def weights_fingerprint(network: nn.Module) -> str:
    """sha256 over names, dtypes, shapes and bytes of the state dict, in its order."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _put(network: nn.Module, given: Mapping[str, torch.Tensor], where: str, spec: Model) -> None:
    """Copy the weights into the network after checking that they are its own, and finite."""
    own = network.state_dict()
    given = {
        key: value
        for key, value in without_shared_prefix(given, own).items()
        if not key.startswith(spec.training_only)
    }
    missing = [k for k in own if k not in given and not k.endswith(COUNTER)]
    unexpected = [k for k in given if k not in own]
    wrong = [
        f"{k} {tuple(given[k].shape)} instead of {tuple(own[k].shape)}"
        for k in own
        if k in given and given[k].shape != own[k].shape
    ]
    found = [
        f"{len(keys)} {label}: {', '.join(keys[:SHOWN_KEYS])}{', ...' * (len(keys) > SHOWN_KEYS)}"
        for label, keys in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of wrong shape", wrong),
        )
        if keys
    ]
    if found:
        shared = {field.name for field in fields(Model)}
        own_options = [f.name for f in fields(spec) if f.name not in shared]
        options = "".join(f", {name}={getattr(spec, name)}" for name in own_options)
        raise ProgipError(
            f"{where} does not fit model '{spec.name}' ({type(spec).__name__}, {spec.classes} "
            f"classes, {spec.channels} channels{options}): {'; '.join(found)}. These are probably "
            "the weights of another architecture or dataset; correct model.weights, model, or its "
            "options"
        )
    check_kinds(given, own, where)
    network.load_state_dict(given, strict=False)
    for key, value in network.state_dict().items():  # after the copy: float64 may overflow in it
        bad = int((~torch.isfinite(value)).sum())
        if bad:
            raise ProgipError(
                f"{where}: {bad} of {value.numel()} values of '{key}' are NaN or infinite; "
                "the file is damaged or its training diverged"
            )


def _prepared(
    network: nn.Module, spec: Model, image_shape: tuple[int, int, int] | None
) -> nn.Module:
    """``spec.prepared``, held against the network itself on two images of noise."""
    place = next((p.device for p in network.parameters()), torch.device("cpu"))
    changes = spec.operations or type(spec).prepared is not Model.prepared
    if image_shape is None or not changes:
        return _rewritten(network, spec).to(place)
    images = torch.randn(2, *image_shape, generator=torch.Generator().manual_seed(0)).to(place)
    expected, found = _answer(network, images), None
    result = _rewritten(network, spec).to(place)
    if result is not network and expected is not None:
        found = _answer(result, images)
    if expected is not None and found is not None:
        scale = float(expected.abs().nan_to_num(0.0).max())
        if not torch.allclose(found, expected, rtol=1e-3, atol=1e-4 * scale, equal_nan=True):
            apart = float((found - expected).abs().nan_to_num(torch.inf).max())
            raise ProgipError(
                f"model '{spec.name}': the network that {type(spec).__name__}.prepared() gives "
                f"computes other logits than the model's own, by up to {apart:.2g}; "
                "with_own_modules cannot follow tensors that are changed in place under two names"
            )
    return result


def _rewritten(network: nn.Module, spec: Model) -> nn.Module:
    if not spec.operations:
        return spec.prepared(network)
    try:
        return spec.prepared(network)
    except ProgipError:
        raise
    except Exception as error:  # a user's own code may do anything that tracing cannot follow
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ProgipError(
            f"model '{spec.name}': operations=true needs a network that torch.fx can trace, and "
            f"this one cannot be ({reason}); leave operations=false"
        ) from error


def _answer(network: nn.Module, images: torch.Tensor) -> torch.Tensor | None:
    """Its logits; None where it fails, of which ``_try`` says why."""
    try:
        with torch.no_grad():
            logits = network(images.clone())
    except Exception:  # a user's own code may raise anything
        return None
    return logits if isinstance(logits, torch.Tensor) else None


def _try(
    network: nn.Module, spec: Model, image_shape: tuple[int, int, int], order: torch.memory_format
) -> None:
    device = next((p.device for p in network.parameters()), torch.device("cpu"))
    images = torch.zeros(2, *image_shape, device=device).contiguous(memory_format=order)
    shape = " x ".join(map(str, image_shape))
    try:
        with torch.no_grad():
            logits = network(images)
    except Exception as problem:  # a user's own code may raise anything
        raise ProgipError(_refusal(network, spec, images, order, problem)) from problem
    wanted = (2, spec.classes)
    if not isinstance(logits, torch.Tensor) or logits.shape != wanted:
        got = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise ProgipError(
            f"model '{spec.name}' gives {got} for two images of {shape}, not logits {wanted}"
        )


def _refusal(
    network: nn.Module,
    spec: Model,
    images: torch.Tensor,
    order: torch.memory_format,
    problem: Exception,
) -> str:
    """Why a network does not take images, and what to do."""
    reason = (str(problem).splitlines() or [type(problem).__name__])[0][:200]
    types = other_types(network)
    if types:
        return (
            f"model '{spec.name}': {types}, and images are float32; only float32 can be executed "
            f"and hit: call .float() on the network ({reason})"
        )
    if order == torch.channels_last:
        plain = torch.contiguous_format
        try:
            with torch.no_grad():
                network.to(memory_format=plain)(images.contiguous())  # type: ignore[call-overload]
        except Exception:  # then the memory format is not the reason
            pass
        else:
            return (
                f"model '{spec.name}' does not run in the memory format channels_last ({reason}); "
                "add channels_last=false, or use reshape or flatten in place of view"
            )
    shape = " x ".join(map(str, images.shape[1:]))
    return (
        f"model '{spec.name}' cannot take images of {shape} (channels, height, width): {reason}. "
        "Choose another model or dataset, or resize the images (model.input_size, where the model "
        "has it)"
    )
