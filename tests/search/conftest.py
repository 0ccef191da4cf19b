"""A toy search: three source tasks, two validation tasks, two trials with three rungs."""

from __future__ import annotations

from search_fixtures import job, study, toy_gym

__all__ = ["job", "study", "toy_gym"]
