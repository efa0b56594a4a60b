"""From a campaign's folder to its tables."""

from progip.analysis.campaign import Campaign
from progip.report.writing import write_report

__all__ = ["Campaign", "write_report"]
