"""From a campaign's folder to its tables."""

from progip.report.campaign import Campaign
from progip.report.render import write_report

__all__ = ["Campaign", "write_report"]
