"""The tour runs as it stands, from an empty folder, and shows what it says."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_the_tour(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "tour.py"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    said = done.stdout
    accuracy = float(re.search(r"accuracy on 393 test images: ([0-9.]+)%", said).group(1))
    assert accuracy > 90
    rows = r"^ *(?:first_forward|backward|second_forward) +(?:id|ood)"
    assert len(re.findall(rows, said, re.M)) == 12
    assert "without a fault: 0 alarms in 32 images" in said
    changed, noticed = map(int, re.search(r"with it: (\d+) other answers, (\d+)", said).groups())
    assert changed >= noticed > 0
    written = {path.name for path in (tmp_path / "outputs/tour").iterdir()}
    assert {"net.safetensors", "guarded.safetensors", "vulnerability.png"} <= written
