"""Of how much of each network the rates of a report speak."""

from typing import Any

from progip.analysis.campaign import Campaign
from progip.analysis.manifests import part

MOST_NAMED = 4  # layers in one sentence
PARTIAL = 0.995  # below this share of the multiply-accumulates it is a finding


def coverage_notes(campaign: Campaign, partial: bool = False) -> list[str]:
    """For each network, the share of multiply-accumulates that faults can hit in its passes.

    Args:
        partial: only where some of the network is left out.

    Returns:
        sentences; none for cells of versions that did not record it.
    """
    said: dict[tuple[str, str, str], str] = {}
    for folder in campaign.folders:
        found, cell = part(folder.manifest, "coverage"), folder.manifest["cell"]
        if found.get("macs") and not (partial and found["macs_hit"] >= PARTIAL * found["macs"]):
            fault_pass = str(cell["fault_pass"]).replace("_", " ")
            said[cell["model"], fault_pass, cell["ood_method"]] = _sentence(found)
    where: dict[tuple[str, str], dict[str, None]] = {}
    for (model, fault_pass, method), text in said.items():
        here = {t for (m, p, _), t in said.items() if (m, p) == (model, fault_pass)}
        label = fault_pass if len(here) == 1 else f"{fault_pass} of {method}"
        where.setdefault((model, text), {}).setdefault(label)
    return [f"{model}, {', '.join(labels)}: {text}" for (model, text), labels in where.items()]


def _sentence(found: dict[str, Any]) -> str:
    text = (
        f"the layers that faults can hit make {100 * found['macs_hit'] / found['macs']:.1f} % of "
        "the multiply-accumulates of one forward pass; the rates describe these layers alone."
    )
    missed = found.get("not_hit", [])
    if missed:
        named = ", ".join(f"{m['layer']} ({m['kind']})" for m in missed[:MOST_NAMED])
        more = f" and {len(missed) - MOST_NAMED} more" if len(missed) > MOST_NAMED else ""
        first = missed[0]
        text += f" Not hit: {named}{more}; layer '{first['layer']}' {first['reason']}."
    return text
