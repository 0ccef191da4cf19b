"""One writer for a database that is a file: an actor beside the driver, which all workers call.

A database server has writers enough; then workers reach it themselves and there is no actor.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from mpt.errors import MptError
from mpt.search.ray.watchdog import end_with_raylet
from mpt.store.database import Database
from mpt.store.records import Run
from mpt.store.sql.inserting import run_parts
from mpt.trial.score import PointScore
from mpt.trial.store import Scoring, TrialStore

METHODS = {name for name in vars(TrialStore) if not name.startswith("_")} - {
    *("add_runs", "scores", "baseline")
}
"""Methods of `TrialStore` that another process may call. Of the others a worker does the part that
takes time: forming rows and digests, and scores with their intervals."""


class ResultWriter:
    """The actor: calls methods of a `TrialStore` one after the other."""

    def __init__(self, url: str) -> None:
        end_with_raylet()
        self._database = Database(url)
        self._store = TrialStore(self._database)

    def call(self, name: str, arguments: tuple[Any, ...]) -> tuple[bool, Any]:
        """Call a method; return (True, its answer) or (False, an error that a person can cure)."""
        try:
            return True, getattr(self._store, name)(*arguments)
        except MptError as error:
            return False, error

    def close(self) -> None:
        """Close the database."""
        self._database.close()


class RemoteStore:
    """A `TrialStore` that asks the writer for what only the database knows.

    Every worker waits for the one writer, so what needs no database is done here. One serves all
    trials of a worker: studies and the baseline's scores are asked for once.
    """

    def __init__(self, writer: Any) -> None:
        self._writer = writer
        self._scoring = Scoring(self.evidence, self.study)

    def add_runs(self, runs: Sequence[Run]) -> list[str]:
        """Store runs as a whole; return the keys that were not there. The first writer wins."""
        answer: list[str] = self.add_parts(run_parts(runs))
        return answer

    def scores(self, keys: Collection[str]) -> dict[str, PointScore]:
        """Return the scores of the points that are stored and whose baseline is."""
        return self._scoring.scores(keys)

    def __getattr__(self, name: str) -> Any:
        if name not in METHODS:
            raise AttributeError(name)

        def call(*arguments: Any) -> Any:
            import ray

            fine, answer = ray.get(self._writer.call.remote(name, arguments))
            if not fine:
                raise answer
            return answer

        return call


def start_writer(url: str) -> Any:
    """Start the writer on this node; return its handle, or None where none is needed."""
    if not url.startswith("sqlite"):
        return None
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(ResultWriter)
    return actor.options(scheduling_strategy=here).remote(url)
