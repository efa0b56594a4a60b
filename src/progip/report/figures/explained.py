"""Where the network looks in runs that `python -m progip explain` has looked at."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Drawing

from progip.analysis.campaign import Campaign
from progip.report.figures import style
from progip.report.figures.base import Figure

TITLE = "Where the network looks, without and with the fault of a run"
CAPTION = (
    "Ablation-CAM for the class of the fault-free run (Desai, Ramaswamy, WACV 2020): the image, "
    "the fault-free map over it and the map of the run with its fault. Yellow is what the score of "
    "the class rests on most. A map is missing where logits are not finite."
)


def explained(campaign: Campaign) -> list[Figure]:
    """One figure per explained run."""
    found: list[Figure] = []
    for folder in campaign.folders:
        for path in sorted(folder.path.glob("explained-*.parquet")):
            data = pd.read_parquet(path)
            name = f"explained-{len(found) + 1}"
            title = f"{TITLE}: run {data['run_id'].iloc[0]} of {folder.name}"
            source = f"figures.explained(campaign)[{len(found)}]"
            found.append(Figure(name, title, CAPTION, _alt(data), data, draw, source))
    return found


def _alt(data: pd.DataFrame) -> str:
    if data["faulty"].isna().any() or data["clean"].isna().any():
        return "An image; one of its maps is missing."
    r = np.corrcoef(data["clean"], data["faulty"])[0, 1]
    return f"An image and two maps over it, whose correlation is {r:.2f}."


def draw(data: pd.DataFrame) -> Drawing:
    """The image and both maps over it."""
    height, width = int(data["y"].max()) + 1, int(data["x"].max()) + 1
    image = data[["red", "green", "blue"]].to_numpy(np.uint8).reshape(height, width, 3)
    drawing, axes = style.panels(1, 3, 2.2)
    for panel, (title, name) in zip(
        axes[0], (("image", ""), ("fault-free", "clean"), ("with the fault", "faulty")), strict=True
    ):
        panel.imshow(image, interpolation="nearest")
        if name:
            over = data[name].to_numpy(float).reshape(height, width)
            if np.isnan(over).any():
                title += ": no map"
            else:
                panel.imshow(over, cmap="viridis", alpha=0.55, vmin=0, vmax=1)
        panel.set_title(title)
        panel.set_xticks([])
        panel.set_yticks([])
        panel.grid(False)
    return drawing
