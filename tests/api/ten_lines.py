"""Ten lines as in the README: ``python ten_lines.py METHOD MODEL GYM RESULTS [STORE]``.

With a database of one's own at STORE the search and the replay share one Ray.
"""

from __future__ import annotations

import contextlib
import sys
from typing import Any

import mpt
from mpt.search.cost import probe
from mpt.search.ray.session import one_ray

if __name__ == "__main__":
    plugin, model, gym, results, *store = sys.argv[1:]
    mpt.load_plugin(plugin)
    study = mpt.Study(
        backbone=model,
        gym=gym,
        partition="random_to_random",
        precision="float32",
        data_seeds=[13, 21],
        prompt_length=3,
        max_input=24,
        max_target=4,
        tuning_steps=4,
        tuning_lrs=[0.5, 0.2],
        eval_every=2,
    )
    space = mpt.Space("pulled", inner_lr=mpt.loguniform(1e-2, 10), mu=[0.0, 0.5], steps=[2, 4])
    where: dict[str, Any] = {"workers": 1, **({"store": store[0]} if store else {})}
    probe.PROBE_S = 0.2  # nobody relies on the estimate
    with one_ray() if store else contextlib.nullcontext():
        result = mpt.search(
            study, space, results=results, searcher="optuna", num_samples=2, **where
        )
        print("best", result.best.point)
        runs = mpt.load_results(results, *store).runs()
        print("points", len(result.points()), "runs", len(runs))
        print("cells", mpt.replay(result.best, workers=1).table().to_dict("records"))
