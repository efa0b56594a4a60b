"""``python -m progip attack``: accuracy under adversarial images."""

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from tabulate import tabulate

from progip.attacks.base import LEVELS, Attack, PixelNetwork
from progip.attacks.measuring import Robustness, robustness
from progip.campaign.network_under_test import NetworkUnderTest
from progip.campaign.settings import SubjectSettings
from progip.config import build, cell_settings, composed
from progip.datasets.base import Dataset, Images
from progip.errors import ProgipError
from progip.statistics import Rate
from progip.storage.whole_files import write_whole


def attack(arguments: argparse.Namespace) -> None:
    """Measure a network's accuracy under adversarial images, with intervals."""
    cfg = composed(arguments.overrides, primary="attack")
    chosen = build(cfg.attack, Attack, "attack")
    keys = [str(key) for key in cfg if key != "attack"]
    settings = cell_settings(OmegaConf.masked_copy(cfg, keys))
    if settings.subject.correction is None and settings.protection.name != "none":
        raise ProgipError(
            f"protection={settings.protection.name} only watches, so accuracy under attack is that "
            "of the unprotected network; give protection=none, or one that corrects"
        )
    if settings.threads:
        torch.set_num_threads(settings.threads)
    kept: list[torch.Tensor] = []
    found = attacked(settings.subject, chosen, seed=settings.seed, seen=kept.append)
    row = {
        "model": settings.subject.model.name,
        "dataset": settings.subject.dataset.name,
        "protection": settings.protection.name,
        "attack": chosen.name,
        "budget": f"{chosen.budget:g}/255",
        "images": found.clean.n,
        "accuracy": _shown(found.clean),
        "under attack": _shown(found.robust),
    }
    print(tabulate([row], headers="keys", disable_numparse=True))
    print("\n95 % Wilson intervals; right under attack are images that are right without it, too")
    if arguments.out is not None:
        content = {**recorded(settings.subject, chosen, settings.seed), **asdict(found)}
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        write_whole(arguments.out, lambda path: path.write_text(json.dumps(content, indent=1)))
        print(arguments.out)
    if arguments.images is not None:
        write_images(arguments.images, settings.subject.dataset, torch.cat(kept).cpu())


def write_images(folder: Path, dataset: Dataset, found: torch.Tensor) -> None:
    """Attacked images for campaigns (``dataset=npz``), and beside them those they were made of.

    ``attacked.npz`` and ``clean.npz`` are the evaluation images, ``train.npz`` the training images.
    Attacked pixels are rounded to whole levels, which keeps a budget of whole levels.

    Args:
        found: (n, channels, height, width) in [0, 1], in the order of the evaluation images.
    """
    clean = dataset.split("evaluation")
    pixels = (found * LEVELS).round().to(torch.uint8).numpy()
    changed = Images(pixels, clean.labels, clean.index)
    named = {"attacked": changed, "clean": clean, "train": dataset.split("train")}
    folder.mkdir(parents=True, exist_ok=True)
    for name, images in named.items():
        content = BytesIO()
        np.savez_compressed(content, data=images.pixels, labels=images.labels, index=images.index)
        write_whole(folder / f"{name}.npz", partial(_write, content=content.getvalue()))
    print(f"{len(changed)} attacked images in {folder}: dataset=npz dataset.folder={folder} ...")


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def attacked(
    subject: SubjectSettings,
    chosen: Attack,
    *,
    seed: int = 0,
    seen: Callable[[torch.Tensor], object] | None = None,
) -> Robustness:
    """Accuracy under attack of a network as campaigns execute it, its corrections included."""
    found = NetworkUnderTest(subject)
    mean, std = list(subject.dataset.mean), list(subject.dataset.std)
    images = subject.dataset.split("evaluation")
    pixels = torch.from_numpy(images.pixels).float().div_(255).to(found.device)
    labels = torch.from_numpy(images.labels).to(found.device)
    network = PixelNetwork(found.network, mean, std, subject.channels_last).to(found.device)
    return robustness(
        network.eval(), pixels, labels, chosen, batch_size=subject.rows, seed=seed, seen=seen
    )


def recorded(subject: SubjectSettings, chosen: Attack, seed: int) -> dict[str, Any]:
    """What was attacked and how, for files of results."""
    parts: dict[str, Any] = {"model": subject.model, "dataset": subject.dataset, "attack": chosen}
    return {
        **{name: asdict(part) for name, part in parts.items()},
        "protection": None if subject.correction is None else asdict(subject.correction),
        "number_format": subject.number_format.name,
        "seed": seed,
        "torch": str(torch.__version__),
    }


def _shown(rate: Rate) -> str:
    return f"{100 * rate.estimate:.1f} % ({100 * rate.low:.1f}–{100 * rate.high:.1f})"


def add(commands: Any) -> None:
    """Make the command known."""
    sub = commands.add_parser("attack", help=attack.__doc__, description=attack.__doc__)
    sub.add_argument(
        "overrides",
        nargs="*",
        help="as for `progip run`, and attack=fgsm, pgd, cw_inf, auto_attack; attack.budget=8: "
        "levels of 255; attack.steps=20; protection=NAME of one that corrects",
    )
    sub.add_argument("--out", type=Path, help="a JSON file to write the figures to, too")
    sub.add_argument(
        "--images", type=Path, help="a folder for the attacked images, as campaigns read them"
    )
    sub.set_defaults(action=attack)
