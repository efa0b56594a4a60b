"""Lets a CUDA build of torchvision be imported beside a CPU build of torch."""

import torch

_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_library: torch.library.Library | None = None


def enable_torchvision() -> None:
    """Make ``import torchvision`` work; call it before the import. Does nothing on a matching pair.

    torchvision registers a meta kernel for ``torchvision::nms`` when it is imported. Where its C++
    extension cannot be loaded (its CUDA build next to a CPU torch) that operator has no schema and
    the import dies. Schemas alone suffice: no detection operator is ever called here.
    """
    global _library
    if _library is not None or torch.version.cuda is not None:
        return
    from importlib.metadata import PackageNotFoundError, version

    try:
        local_build = version("torchvision").partition("+")[2]
    except PackageNotFoundError:
        return
    if local_build == "cpu" or hasattr(torch.ops.torchvision, "nms"):
        return
    _library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in _SCHEMAS.values():
        _library.define(schema)
