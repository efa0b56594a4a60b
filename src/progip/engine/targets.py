"""What a fault hits: how a tensor of a pass is reached, and whether rows have their own faults."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from progip.models.calls import tensor_argument, with_tensor_argument
from progip.passes import forward_of, is_backward, is_forward

#: gives a tensor with its faults in it
Flip = Callable[[Tensor], Tensor]
#: asked at every call of a module: what to do with its tensor, None for nothing
AtCall = Callable[[], Flip | None]


class Target(ABC):
    """A kind of tensor that faults hit.

    Class attributes:
        name: what result rows call it.
        scope: ``row``: every row of a batch has faults of its own; ``round``: one set of faults
            for a whole round of images (what stays in memory).
    """

    name: ClassVar[str]
    scope: ClassVar[str] = "row"

    @abstractmethod
    def is_in(self, fault_pass: str) -> bool:
        """Whether there are such tensors in a pass."""

    @abstractmethod
    def counted_in(self, fault_pass: str) -> str:
        """The pass in which the calls of a module are counted, for faults in ``fault_pass``."""

    @abstractmethod
    def hook(self, module: nn.Module, at_call: AtCall) -> RemovableHandle:
        """Give the tensor of each call of a module to what ``at_call`` gives for it."""


class ModuleOutput(Target):
    """The output of a module in a forward pass: an activation."""

    name: ClassVar[str] = "output"

    def is_in(self, fault_pass: str) -> bool:
        """In every forward pass."""
        return is_forward(fault_pass)

    def counted_in(self, fault_pass: str) -> str:
        """The pass itself."""
        return fault_pass

    def hook(self, module: nn.Module, at_call: AtCall) -> RemovableHandle:
        """Before the hooks of a correcting protection: it sees what the fault did."""

        def after(_: nn.Module, __: Any, output: Any) -> Any:
            flip = at_call()
            return None if flip is None else flip(output)

        return module.register_forward_hook(after, prepend=True)


class InputGradient(Target):
    """The gradient that a module's backward computation gives for its input (``grad_input``)."""

    name: ClassVar[str] = "grad_input"

    def is_in(self, fault_pass: str) -> bool:
        """In every backward pass."""
        return is_backward(fault_pass)

    def counted_in(self, fault_pass: str) -> str:
        """The forward pass that the gradient is computed from."""
        return forward_of(fault_pass)

    def hook(self, module: nn.Module, at_call: AtCall) -> RemovableHandle:
        """On a view of the input of its own: the gradient of the input sums what others give."""

        def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            flip, given = at_call(), tensor_argument(args, kwargs)
            if flip is None or given is None:
                return None
            view = given.view_as(given)
            view.register_hook(flip)
            return with_tensor_argument(args, kwargs, view)

        return module.register_forward_pre_hook(before, with_kwargs=True)


TARGETS: tuple[Target, ...] = (ModuleOutput(), InputGradient())


def target_of(fault_pass: str) -> Target:
    """The target of faults in the execution of a pass."""
    return next(target for target in TARGETS if target.is_in(fault_pass))
