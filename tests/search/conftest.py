"""A toy search: three source tasks, two validation tasks, two trials with three rungs."""

from __future__ import annotations

from search_fixtures import drive, job, one_worker, study, toy_gym

__all__ = ["drive", "job", "one_worker", "study", "toy_gym"]
