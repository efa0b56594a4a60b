"""The runtime table by itself, as text and as files beside its numbers."""

from pathlib import Path

from progip.deploy.runtime import FOLDER
from progip.errors import ProgipError
from progip.report.rendering.csvs import to_csv
from progip.report.rendering.text import to_markdown, to_text
from progip.report.sections.runtime import runtime_sections


def write_table(folder: str | Path, beside: bool = False) -> str:
    """The runtime table as text; also written as runtime.md and runtime.csv beside its numbers.

    Raises:
        ProgipError: as `runtime_sections`, there are no measurements, or the folder is read-only.
    """
    sections = runtime_sections(folder, beside)
    target = Path(folder) / FOLDER
    if not sections:
        raise ProgipError(f"{target} holds no measurement; python -m progip runtime makes one")
    try:
        (target / "runtime.md").write_text(to_markdown("Runtime", (), sections), encoding="utf-8")
        (target / "runtime.csv").write_text(to_csv(sections[0].data), encoding="utf-8")
    except OSError as error:
        raise ProgipError(f"cannot write to {target} ({error.strerror})") from error
    return to_text("Runtime", (), sections)
