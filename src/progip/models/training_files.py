"""What a training leaves on disk: its checkpoint, and the finished weights with their origin."""

import hashlib
import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save_file
from torch import nn

from progip.errors import ProgipError
from progip.models.averaging import Average
from progip.models.base import Model
from progip.models.recipe import completed
from progip.storage.whole_files import write_whole

#: one key alone: safetensors writes several in an order that differs from process to process
METADATA_KEY = "progip"
#: fields of a model that do not influence its training
_IRRELEVANT = ("weights", "sha256", "feature_layer")


@dataclass(frozen=True)
class Settings:
    """All that the trained weights depend on, but for the machine and its libraries.

    Attributes:
        values: JSON types only.
    """

    values: dict[str, Any]

    @classmethod
    def of(
        cls,
        spec: Model,
        data: str,
        mean: list[float],
        std: list[float],
        seed: int,
        start: str | None = None,
    ) -> "Settings":
        """Of a training.

        Args:
            data: fingerprint of the training images.
            start: fingerprint of the weights it starts from, where these are more than the initial
                weights that model and seed give.
        """
        model = {k: v for k, v in asdict(spec).items() if k not in _IRRELEVANT}
        model.pop("recipe")
        if spec.head is None:  # so that files from before there were heads stay valid
            model.pop("head")
        else:
            model["head"]["class"] = spec.head.form()["class"]
        model["class"] = f"{type(spec).__module__}.{type(spec).__qualname__}"
        data_values = {"fingerprint": data, "mean": list(mean), "std": list(std)}
        values = {
            "model": model,
            "recipe": spec.recipe.recorded(),
            "data": data_values,
            "seed": seed,
        }
        if start is not None:
            values["start"] = start
        return cls(json.loads(json.dumps(values)))

    def differences(self, other: dict[str, Any]) -> str:
        """Which settings are not those of ``other``, in words; empty where all are."""
        found = []
        for group, ours in self.values.items():
            theirs = other.get(group)
            if isinstance(ours, dict) and isinstance(theirs, dict):
                if group == "recipe":
                    ours, theirs = completed(ours), completed(theirs)
                keys = sorted(k for k in ours | theirs if ours.get(k) != theirs.get(k))
                found += [f"{group}.{k}: {theirs.get(k)} there, {ours.get(k)} now" for k in keys]
            elif ours != theirs:
                found.append(f"{group}: {theirs} there, {ours} now")
        return "; ".join(found)


class Run:
    """The files of one training: ``output`` and, until that is there, a checkpoint beside it."""

    def __init__(self, output: Path, settings: Settings) -> None:
        if output.suffix != ".safetensors":
            raise ProgipError(f"trained weights are written as .safetensors, not to {output}")
        self.output = output
        self.settings = settings
        self.checkpoint_path = output.with_suffix(".checkpoint.pt")

    def prepare(self, resume: bool) -> None:
        """Make the folder; without ``resume`` remove what is there.

        Raises:
            ProgipError: where the folder cannot be made or written.
        """
        try:
            self.output.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.output.parent):
                pass
            if not resume:
                self.output.unlink(missing_ok=True)
                self.checkpoint_path.unlink(missing_ok=True)
        except OSError as problem:
            raise ProgipError(
                f"cannot write trained weights to {self.output}: {problem.strerror}; "
                "choose another output"
            ) from problem

    def finished(self) -> tuple[str, float | None] | None:
        """sha256 and test accuracy of the finished weights, None where there are none.

        Raises:
            ProgipError: where ``output`` was made with other settings, or not by a training.
        """
        if not self.output.exists():
            return None
        try:
            with safetensors.safe_open(self.output, framework="pt") as content:
                made = json.loads((content.metadata() or {})[METADATA_KEY])
            differences = self.settings.differences(made)
        except (safetensors.SafetensorError, OSError, KeyError, ValueError):
            differences = "it does not say how it was made"
        self._refuse(self.output, differences)
        return _sha256(self.output), made["accuracy"]

    def restore(
        self,
        network: nn.Module,
        optimiser: torch.optim.Optimizer,
        average: Average,
        device: torch.device,
    ) -> int:
        """Load the checkpoint, if there is one; the number of finished epochs.

        Raises:
            ProgipError: where it is damaged or was made with other settings.
        """
        path = self.checkpoint_path
        if not path.exists():
            return 0
        try:
            state = torch.load(path, weights_only=True, map_location=device)
            made, epochs = json.loads(state["settings"]), int(state["epochs"])
        except Exception as problem:  # damaged files raise anything: EOFError, RuntimeError, ...
            raise ProgipError(
                f"the checkpoint {path} is damaged; delete it, or train with --restart "
                "(resume=False)"
            ) from problem
        self._refuse(path, self.settings.differences(made))
        network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])
        average.restore(state.get("average", {}))
        return epochs

    def checkpoint(
        self,
        network: nn.Module,
        optimiser: torch.optim.Optimizer,
        average: Average,
        epochs: int,
    ) -> None:
        """Write the state after so many epochs; the file is whole or not there at all."""
        state = {
            "settings": json.dumps(self.settings.values),
            "epochs": epochs,
            "network": network.state_dict(),
            "optimiser": optimiser.state_dict(),
            "average": average.state(),
        }
        write_whole(self.checkpoint_path, lambda path: torch.save(state, path))

    def finish(self, network: nn.Module, accuracy: float | None) -> str:
        """Write the finished weights, remove the checkpoint, return the sha256 of the weights."""
        origin = {**self.settings.values, "accuracy": accuracy, "torch": str(torch.__version__)}
        metadata = {METADATA_KEY: json.dumps(origin, sort_keys=True)}
        state = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
        write_whole(self.output, lambda path: save_file(state, path, metadata=metadata))
        self.checkpoint_path.unlink(missing_ok=True)
        return _sha256(self.output)

    def _refuse(self, path: Path, differences: str) -> None:
        if differences:
            raise ProgipError(
                f"{path} is there already and was made with other settings ({differences}); "
                "choose another output, delete it, or train with --restart (resume=False)"
            )


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
