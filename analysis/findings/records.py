"""All findings of a section, in the order of the paper's questions."""

from __future__ import annotations

from dataclasses import dataclass

from ..results.sections import Section
from .costs import cost_finding
from .finding import Finding
from .identity import identity
from .matrix import Matrix, matrix_of
from .searches import search_findings
from .settings import main_backbone, target_settings
from .speed import speed_findings
from .starts import start_findings
from .sweeps import sweep_findings


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What a section says."""

    studied: tuple[str, ...]
    """What it is of, in sentences."""
    findings: tuple[Finding, ...]
    not_run: str
    """One line that names questions without records; empty if all were asked."""
    matrix: Matrix | None
    """All pairs of methods over the plain settings of the tables' backbone; None without two."""


def findings_of(section: Section, backbone: str = "") -> Findings:
    """Compute everything that is said of a section.

    Args:
        section: what the database says; of a smoke run nothing is found but its cost.
        backbone: of the findings that are about one model; empty chooses, as the tables do.
    """
    settings = target_settings(section)
    main = main_backbone(settings, backbone)
    plain = [one for one in settings if one.place.is_plain() and one.place.backbone == main]
    if section.smoke:
        return Findings(
            studied=tuple(identity(section)),
            findings=(cost_finding(section),),
            not_run="",
            matrix=None,
        )
    matrix = matrix_of(plain)
    parts = [
        start_findings(plain, matrix),
        sweep_findings(settings),
        search_findings(section),
        speed_findings(section, plain) if plain else ([], []),
        ([cost_finding(section)], []),
    ]
    missing = [text for _, lacking in parts for text in lacking]
    return Findings(
        studied=tuple(identity(section)),
        findings=tuple(finding for part, _ in parts for finding in part),
        not_run=f"Not run: {'; '.join(missing)}." if missing else "",
        matrix=matrix if matrix.duels else None,
    )
