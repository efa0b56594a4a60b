"""What the TensorFI+ source prints: SDC rates of six networks, and bounds of SCM shares."""

from typing import NamedTuple

from progip.described import WORKS

CITATION = WORKS["TensorFI+"]
#: injections per network; all six rates are whole multiples of one in so many
INJECTIONS = 3000
#: outcomes that the figures belong to
OUTCOMES = ("sdc", "sdc_all", "scm")


class Published(NamedTuple):
    """One network: top-1 accuracy and SDC rate, fractions of 1."""

    data: str
    model: str
    accuracy: float
    sdc: float


SDC_RATES = (
    Published("ImageNet", "VGG16", 0.7118, 0.0353),
    Published("ImageNet", "ResNet50", 0.7476, 0.0143),
    Published("ImageNet", "DenseNet121", 0.7504, 0.0120),
    Published("CIFAR-100", "VGG19", 0.7153, 0.0123),
    Published("CIFAR-100", "GoogLeNet", 0.7670, 0.0157),
    Published("CIFAR-100", "Xception", 0.7796, 0.0200),
)
#: what is said of SCM shares ("around"): (fault-free, faults in correct, in misclassified images)
SCM_SHARES = {
    "CIFAR-100": ("below 20 %", "30 to 40 %", "20 to 50 %"),
    "ImageNet": ("below 10 %", "10 to 38 %", "14 to 36 %"),
}


def data_of(dataset: str) -> str:
    """The source's name of a dataset, "" for another one."""
    name = dataset.lower()
    return (
        "CIFAR-100"
        if name.startswith("cifar100")
        else ("ImageNet" if name.startswith("imagenet") else "")
    )
