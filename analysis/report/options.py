"""What a report is asked to hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """What a report holds beside the tables."""

    store: str | None = None
    """URL of the database; None: the one in the results directory."""
    study: str | None = None
    """First digits of the only study or protocol; None: all."""
    backbone: str | None = None
    """Of the tables that show one model; None chooses (`Lookup`)."""
    budgets: Mapping[str, float] | None = None
    """Cost ("steps", "examples") → budget of the view at equal cost; None: the common one."""
    contest: Path | None = None
    """Results directory of a contest against multitask learning; None: none is shown."""
    figures: bool = True
    """Draw the figures too."""
    copy_records: bool = False
    """Put copies of the records into the report."""
