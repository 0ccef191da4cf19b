"""Our side of `peers_real.py`: the downstream runs of plain prompt tuning, as trials do them."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from measuring import clock_now
from search_profile import REST, Stopwatch

from mpt.store.database import open_results
from mpt.study.study import OpenStudy
from mpt.trial.pack_limits import pack_limits
from mpt.trial.run_queue import RunQueue
from mpt.trial.runs import baseline_packs, keys_of
from mpt.trial.store import TrialStore
from sides.our_search import rows_of
from sides.peer_search import BASELINE


def plain_tuning(study: OpenStudy, results: Path) -> dict[str, Any]:
    """Do and store the runs of plain prompt tuning in one queue; return them as peers do.

    What may go through a GPU at once is measured before: a search keeps it for all of its runs.

    Args:
        study: the open study.
        results: an empty directory.

    Returns:
        See `Scorer.trial`; the parts are those of `search_profile`.
    """
    cpu = Stopwatch()
    clock = Stopwatch(functools.partial(clock_now, study.backbone.device.type))
    packs = baseline_packs(study)
    with open_results(results) as database:
        store = TrialStore(database)
        pack_limits(study, [run for pack in packs for run in pack.runs], store)
        with cpu.watching(), clock.watching(), cpu.timed(REST), clock.timed(REST):
            queue = RunQueue(study, packs, store, lambda runs: pack_limits(study, runs, store))
            queue.advance()
        rows = rows_of(database.runs(keys_of(packs)).values())
    return {"point": BASELINE, "runs": rows, "seconds": cpu.seconds, "clock": clock.seconds}
