"""What every worker of a search is told once, and the way to the database from there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mpt.trial.trial import TrialOptions

if TYPE_CHECKING:
    from mpt.search.dispatch import TrialGroup
    from mpt.search.job import Suggestions
    from mpt.trial.store import TrialStore


@dataclass(frozen=True, kw_only=True)
class TrialContext:
    """What all trials of a search share."""

    groups: tuple[TrialGroup, ...]
    """What the listed trials work on; a configuration's `trial` is a place here."""
    suggestions: Suggestions | None
    """Space and study of the trials that are suggested while the search runs."""
    url: str
    """Of the database."""
    writer: Any
    """Handle of the one writer (`mpt.search.ray.writer`); None: workers reach the database."""
    files: str
    """Where checkpoints and prompts go."""
    options: TrialOptions
    """How trials work."""
    gpus: float = 0.0
    device: str | None = None
    """See `Execution`."""
    keys: Mapping[int, str] = field(default_factory=dict)
    """Number of a listed trial → key of its upstream trajectory, as the driver found it."""
    methods: Mapping[str, Any] = field(default_factory=dict)
    """Registered upstream methods: name → `Method`."""

    def store(self) -> TrialStore:
        """Return the database as a trial sees it, here."""
        from mpt.search.ray.writer import RemoteStore

        if self.writer is not None:
            proxy: Any = RemoteStore(self.writer)
            return proxy
        from mpt.store.database import Database
        from mpt.trial.store import TrialStore

        return TrialStore(Database(self.url))

    def group(self, config: Mapping[str, Any]) -> TrialGroup:
        """Return what a trial works on, by its configuration."""
        from mpt.search.dispatch import TrialGroup

        number = int(config["trial"])
        if number < len(self.groups):
            return self.groups[number]
        assert self.suggestions is not None
        point = {domain.name: config[domain.name] for domain in self.suggestions.space.domains}
        return TrialGroup(specs=(self.suggestions.trial(point),), indices=())
