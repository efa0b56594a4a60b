"""What a component says of itself in a report's Methods: one sentence, and whom it cites."""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

#: works that several components cite; key -> full reference
WORKS = {
    "Amarnath": "Amarnath, Mejri, Ma, Chatterjee: Error resilient deep neural networks using "
    "neuron gradient statistics. NeurIPS ML Safety workshop 2022.",
    "GoldenEye": "Mahmoud, Tambe, Aloui, Brooks, Wei: GoldenEye: A platform for evaluating "
    "numerical data formats in DNN accelerators. DSN 2022. https://doi.org/10.1109/DSN53405.2022.00031",
    "FitAct": "Ghavami, Sadati, Fang, Shannon: FitAct: Error resilient deep neural networks via "
    "fine-grained post-trainable activation functions. DATE 2022. https://arxiv.org/abs/2112.13544",
    "FT-ClipAct": "Hoang, Hanif, Shafique: FT-ClipAct: Resilience analysis of deep neural networks "
    "and improving their fault tolerance using clipped activation. DATE 2020, 1241-1246.",
    "Li": "Li, Hari, Sullivan, Tsai, Pattabiraman, Emer, Keckler: Understanding error propagation "
    "in deep learning neural network (DNN) accelerators and applications. SC 2017. "
    "https://doi.org/10.1145/3126908.3126964",
    "ProAct": "Mousavi et al.: ProAct: Progressive training for "
    "hybrid clipped activation function to enhance resilience of DNNs. 2024. "
    "https://arxiv.org/abs/2406.06313",
    "ProGIP": "Joshi, So, Park, Ko, Jung, Ko, Hwang, Lee, Shrivastava: ProGIP: Protecting "
    "Gradient-based Input Perturbation Approaches for Out-of-distribution Detection From Soft "
    "Errors. ACM TECS 2025. https://doi.org/10.1145/3761796",
    "Ranger": "Chen, Li, Pattabiraman: A low-cost fault corrector for deep neural networks through "
    "range restriction. DSN 2021. https://doi.org/10.1109/DSN48987.2021.00018",
    "RReLU": "Mousavi: Reliable ReLU toolbox. https://github.com/hamidmousavi0/reliable-relu-toolbox",
    "TensorFI+": "Laskar, Rahman, Zhang, Li: Characterizing deep learning neural network failures "
    "between algorithmic inaccuracy and transient hardware fault. PRDC 2022. Extended: STVR 2024, "
    "https://doi.org/10.1002/stvr.1873",
}


class Described:
    """A component of a campaign that a report speaks of.

    Class attributes:
        sentence: what it does, for a reader who has not seen the code; it cites works by their key
            in brackets. Empty: the report names the component, and says nothing of it.
        references: the works it cites: key -> full reference.
    """

    sentence: ClassVar[str] = ""
    references: ClassVar[Mapping[str, str]] = {}

    def content(self) -> dict[str, str]:
        """Hashes of files that its options name: what results depend on in place of their paths."""
        return {}


def said_by(component: type) -> dict[str, Any]:
    """What a class says of itself; what it only inherits need not be true of it."""
    own = vars(component)
    return {
        "sentence": str(own.get("sentence", "")),
        "references": dict(own.get("references", {})),
    }


def account(components: Mapping[str, Described]) -> list[dict[str, Any]]:
    """What components say of themselves, for a manifest.

    Args:
        components: by the part they play: ``fault_model``, ``ood_method``, ...
    """
    return [
        {
            "part": part,
            "name": str(getattr(component, "name", "")),
            **said_by(type(component)),
        }
        for part, component in components.items()
    ]


def cited(sentences: Iterable[str], references: Mapping[str, str]) -> dict[str, str]:
    """Those references whose key stands in brackets in one of the sentences."""
    text = " ".join(sentences)
    keys = {
        key.strip()
        for group in text.split("[")[1:]
        for key in group.partition("]")[0].split(",")
    }  # fmt: skip
    return {key: reference for key, reference in references.items() if key in keys}
