"""The contract of an OOD method: one pure function of a batch that announces its passes."""

import copy

import torch
from torch import Tensor, nn

from progip.contracts.broken import Owner
from progip.ood_methods.base import Detection, OODMethod
from progip.passes import is_pass, place_of
from progip.records import PASSES

COUNT, CLASSES = 12, 4


def check_ood_method(
    method: OODMethod,
    network: nn.Module | None = None,
    images: Tensor | None = None,
    labels: Tensor | None = None,
) -> None:
    """Check all that executors, golden work and protections rely on.

    The passes announced are those declared, in their order; shapes and types are those of
    ``Detection``; rows recur, and stand alone; the network is left as it was; what ``fit`` learnt
    can be kept and taken back; a method with a backward pass gives a gradient; ``unperturbed``
    leaves images as they are.

    Args:
        method: not fitted; it is fitted here.
        network: in evaluation mode, parameters frozen; by default a small one for 3 x 8 x 8 images.
        images: (n, channels, height, width), n >= 4, normalised.
        labels: (n,) their classes.

    Raises:
        BrokenContract: saying what does not hold.
    """
    owner = Owner(method)
    owner.check_options()
    owner.must(
        bool(method.passes)
        and all(map(is_pass, method.passes))
        and list(method.passes) == sorted({*method.passes}, key=place_of),
        f"declares the passes {', '.join(method.passes)}; give some of {', '.join(PASSES)}, in "
        "this order (of several steps forward_2, backward_2 and so on before the last)",
    )
    network = _small_network() if network is None else network
    images = torch.randn(COUNT, 3, 8, 8, generator=_seeded(1)) if images is None else images
    labels = torch.arange(len(images)) % CLASSES if labels is None else labels
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    spare = copy.deepcopy(method)
    method.fit(network, [(images, labels)])
    found = _detected(owner, method, network, images)
    _check_shapes(owner, method, found, images)
    owner.must(
        _same(_detected(owner, method, network, images), found), "gives other results a second time"
    )
    _check_rows(owner, method, network, images, found)
    spare.load_state({name: value.clone() for name, value in method.state().items()})
    owner.must(
        _same(_detected(owner, spare, network, images), found),
        "gives other results after load_state(state()): what fit learns must be in state",
    )
    _check_unperturbed(owner, method, network, images, labels)
    for name, value in network.state_dict().items():
        owner.must(torch.equal(value, weights[name]), f"changes '{name}' of the network")
    for name, parameter in network.named_parameters():
        owner.must(parameter.grad is None, f"leaves a gradient in '{name}' of the network")


def _detected(owner: Owner, method: OODMethod, network: nn.Module, images: Tensor) -> Detection:
    passes: list[str] = []
    given = images.clone()
    found = method.detect(network, given, passes.append)
    owner.must(
        passes == list(method.passes),
        f"announces the passes {', '.join(passes) or 'none'} instead of {', '.join(method.passes)}",
    )
    owner.must(torch.equal(given, images), "changes the images it is given")
    return found


def _check_shapes(owner: Owner, method: OODMethod, found: Detection, images: Tensor) -> None:
    count = len(images)
    logits, gradient, perturbed, score, later = found
    owner.must(logits.dim() == 2 and len(logits) == count, "must give logits (B, classes)")
    owner.must(score.shape == (count,), f"must give scores (B,), not {tuple(score.shape)}")
    owner.must(score.dtype == torch.float64, f"must give float64 scores, not {score.dtype}")
    owner.must(bool(torch.isfinite(score).all()), "gives a clean score that is not finite")
    owner.must(len(gradient) == count, "must give a gradient of each image")
    owner.must(not any(t.requires_grad for t in (*found[:4], *later)), "must detach what it gives")
    if "backward" in method.passes:
        owner.must(gradient.shape == images.shape, "must give a gradient of the images' shape")
        owner.must(perturbed.shape == images.shape, "must give perturbed images of their shape")
        owner.must(
            bool(gradient.abs().amax() > 0), "declares a backward pass, but its gradient is zero"
        )
    if method.verdicts:
        owner.must(bool(score.max() > score.min()), "gives every image the same score")


def _check_unperturbed(
    owner: Owner, method: OODMethod, network: nn.Module, images: Tensor, labels: Tensor
) -> None:
    """What figures without the perturbation are made of, where the method says that it has one."""
    plain = method.unperturbed()
    if plain is None:
        return
    if method.learns_perturbed:
        plain.fit(network, [(images, labels)])
    else:
        plain.load_state(method.state())
    found = plain.detect(network, images)
    owner.must(torch.equal(found.perturbed, images), "perturbs images in unperturbed(), too")
    owner.must(
        torch.equal(plain.score(network, images), found.score),
        "gives other scores in score() than in detect() of unperturbed()",
    )


def _check_rows(
    owner: Owner, method: OODMethod, network: nn.Module, images: Tensor, found: Detection
) -> None:
    """At other places, among other images, an image gives the same."""
    place = torch.roll(torch.arange(len(images)), 1)
    mixed = images[place].clone()
    kept = torch.arange(len(images)) % 2 == 0
    mixed[~kept] = mixed[~kept] * 0.5
    other = _detected(owner, method, network, mixed)
    for name in Detection._fields:
        pairs = zip(_tensors(found, name), _tensors(other, name), strict=True)
        owner.must(
            all(torch.equal(expected[place][kept], got[kept]) for expected, got in pairs),
            f"gives an image another {name} beside other images",
        )


def _same(one: Detection, other: Detection) -> bool:
    return all(
        len(_tensors(one, name)) == len(_tensors(other, name))
        and all(map(torch.equal, _tensors(one, name), _tensors(other, name)))
        for name in Detection._fields
    )


def _tensors(found: Detection, name: str) -> tuple[Tensor, ...]:
    value = getattr(found, name)
    return (value,) if isinstance(value, Tensor) else tuple(value)


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _small_network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(24, CLASSES),
        )
    return network.eval().requires_grad_(False)
