"""Of how much of each network the rates of a report speak."""

from progip.analysis.campaign import Campaign
from progip.analysis.manifests import part

MOST_NAMED = 4  # layers in one sentence
PARTIAL = 0.995  # below this share of the multiply-accumulates it is a finding


def coverage_notes(campaign: Campaign, partial: bool = False) -> list[str]:
    """For each network and pass, the share of multiply-accumulates that faults can hit.

    Args:
        partial: only of those where some of the network is left out.

    Returns:
        sentences; none for cells of versions that did not record it.
    """
    told: dict[str, None] = {}
    for folder in campaign.folders:
        found, cell = part(folder.manifest, "coverage"), folder.manifest["cell"]
        if not found.get("macs"):
            continue
        share = found["macs_hit"] / found["macs"]
        if partial and share >= PARTIAL:
            continue
        passes = str(cell["fault_pass"]).replace("_", " ")
        text = (
            f"{cell['model']}, {passes} pass: the layers that faults can hit make "
            f"{100 * share:.1f} % of the multiply-accumulates of one forward pass; the rates speak "
            "of these layers alone."
        )
        missed = found.get("not_hit", [])
        if missed:
            named = ", ".join(f"{m['layer']} ({m['kind']})" for m in missed[:MOST_NAMED])
            more = f" and {len(missed) - MOST_NAMED} more" if len(missed) > MOST_NAMED else ""
            first = missed[0]
            text += f" Not hit: {named}{more}; layer '{first['layer']}' {first['reason']}."
        told.setdefault(text)
    return [*told]
