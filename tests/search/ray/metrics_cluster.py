"""A Ray with two actors that report as trials do; prints its metrics page when they are on it.

``python metrics_cluster.py FOLDER PORT``: Ray serves the metrics on that port.
"""

from __future__ import annotations

import logging
import math
import sys
import time
import urllib.request
from typing import Any


def page(port: int) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


def main(port: int) -> None:
    import ray

    from mpt.search.ray.gauges import Gauges

    class Trial:
        def __init__(self, name: str) -> None:
            self._gauges = Gauges(name)

        def report(self, arg: float) -> None:
            self._gauges.report(
                arg=arg,
                runs_done=2,
                runs_running=3,
                runs_waiting=5,
                steps_per_second=7.5,
                tokens_per_second=math.nan,
            )
            self._gauges.report(runs_done=4)

    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _metrics_export_port=port,
    )
    remote: Any = ray.remote(num_cpus=0.5)(Trial)
    trials = [remote.remote(name) for name in ("maml-inner0.1-outer0.3", "reptile-inner1")]
    ray.get([trial.report.remote(arg) for trial, arg in zip(trials, (4.25, -1.5), strict=True)])
    deadline, text = time.monotonic() + 400, ""
    while text.count("ray_mpt_arg{") < 2 and time.monotonic() < deadline:
        time.sleep(0.5)
        text = page(port)
    print(text)


if __name__ == "__main__":
    main(int(sys.argv[2]))
