"""The passes of a detector by name: forward and backward in turns, and a last forward pass.

``first_forward``, ``backward``, ``second_forward`` of a detector that moves its input once; one
that moves it K times has ``forward_2``, ``backward_2`` to ``backward_K`` in between, and
``second_forward`` remains the name of the last.
"""

import re

from progip.records import PASSES

_BETWEEN = re.compile(r"(forward|backward)_([2-9]|[1-9]\d+)")


def passes_of(steps: int) -> tuple[str, ...]:
    """The passes of a detector with that many gradient steps, as executed.

    >>> passes_of(2)
    ('first_forward', 'backward', 'forward_2', 'backward_2', 'second_forward')
    """
    between = [f"{kind}_{step}" for step in range(2, steps + 1) for kind in ("forward", "backward")]
    return (*PASSES[:2], *between, PASSES[2])


def is_pass(name: str) -> bool:
    """Whether a pass can have this name."""
    return name in PASSES or _BETWEEN.fullmatch(name) is not None


def is_backward(name: str) -> bool:
    """Whether gradients are computed in the pass."""
    return name == PASSES[1] or name.startswith("backward_")


def is_forward(name: str) -> bool:
    """Whether layers are called in the pass."""
    return is_pass(name) and not is_backward(name)


def forward_of(backward: str) -> str:
    """The forward pass whose gradient a backward pass computes.

    >>> forward_of("backward"), forward_of("backward_3")
    ('first_forward', 'forward_3')
    """
    return PASSES[0] if backward == PASSES[1] else backward.replace("backward", "forward")


def backward_of(forward: str) -> str:
    """The backward pass from a forward pass, by name; "" from the last and from other passes.

    >>> backward_of("first_forward"), backward_of("forward_3"), backward_of("second_forward")
    ('backward', 'backward_3', '')
    """
    if forward == PASSES[0]:
        return PASSES[1]
    return forward.replace("forward", "backward") if forward.startswith("forward_") else ""


def place_of(name: str) -> tuple[int, int]:
    """By which passes are put in the order of execution; other names come last."""
    found = _BETWEEN.fullmatch(name)
    if found:
        return int(found[2]), int(found[1] == "backward")
    if name in PASSES[:2]:
        return 1, PASSES.index(name)
    return (10**9, 0) if name == PASSES[2] else (10**9, 1)
