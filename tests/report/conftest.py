"""Fixtures that write campaigns with the factory beside this file."""

from pathlib import Path

import pytest
from campaign_factory import Write, writer_to


@pytest.fixture
def campaign(tmp_path: Path) -> Path:
    """The folder of a campaign that a test fills."""
    return tmp_path / "campaign"


@pytest.fixture
def write_cell(campaign: Path) -> Write:
    """Write a cell: write_cell(rows, shards=1, planned=None, manifest={}, **identity) -> folder."""
    return writer_to(campaign)
