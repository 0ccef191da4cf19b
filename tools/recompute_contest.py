"""Recompute a contest from its database: python tools/recompute_contest.py MPT.DB FROZEN.toml."""

import json
import sqlite3
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np

POINTS = """SELECT p.id, p.method, p.settings, p.steps, s.id, s.backbone, s.partition, s.settings,
    s.lrs, s.train_seed FROM point p JOIN study s ON s.id = p.study_id WHERE s.role = 'target'"""
RUNS = """SELECT r.task, r.data_seed, r.lr, r.dev, r.test FROM point_run x
    JOIN run r ON r.id = x.run_id WHERE x.point_id = ?"""


def recompute(database: Path, frozen: Path) -> dict[str, Any]:
    """Return ``arenas`` (place → contestant → ARG by upstream seed), ``best`` and ``pooled``."""
    entries = tomllib.loads(frozen.read_text(encoding="utf-8"))["contestant"]
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)

    def scores(point: int, lrs: list[float]) -> dict[str, dict[int, float]]:
        best: dict[tuple[str, int], Any] = {}
        for task, seed, lr, dev, test in connection.execute(RUNS, (point,)):
            best[task, seed] = max(best.get((task, seed), (-1,)), (dev, -lrs.index(lr), test))
        return {t: {s: best[u, s][2] for u, s in best if u == t} for t, _ in best}

    rows = connection.execute(POINTS).fetchall()
    plain = {r[4]: scores(r[0], json.loads(r[8])) for r in rows if r[1] == "prompt_tuning"}
    arenas: dict[tuple[str, int, str], dict[str, dict[int, float]]] = {}
    for point, method, settings, steps, study, backbone, part, recipe, lrs, root in rows:
        own, down = json.loads(settings), json.loads(recipe)["downstream"]
        seed = own["seed"] if own.get("seed") is not None else root
        for name, entry in entries.items():
            facts = {"method": method, "steps": steps, "start": down.get("start", "learned")}
            facts["race_steps"] = down.get("race_steps")
            same = all(own.get(key) == value for key, value in entry["settings"].items())
            if same and facts == {key: entry.get(key) for key in facts}:
                base, mine = plain[study], scores(point, json.loads(lrs))
                means = {t: np.mean([*of.values()]) for t, of in base.items()}
                ratios = [np.mean([*mine[t].values()]) / m for t, m in means.items() if m > 0]
                row = arenas.setdefault((backbone, down.get("steps", 3000), part), {})
                row.setdefault(name, {})[seed] = 100 * (float(np.mean(ratios)) - 1)
    mtl = [name for name, entry in entries.items() if entry["method"] == "multitask"]
    mean = {a: {n: np.mean([*by.values()]) for n, by in r.items()} for a, r in arenas.items()}
    best = {a: max((n for n in mtl if n in r), key=lambda n: r[n]) for a, r in mean.items()}
    names = [n for n in entries if all(n in row for row in mean.values())]
    pooled = {n: float(np.mean([row[n] for row in mean.values()])) for n in names}
    top = max(pooled[n] for n in names if n in mtl)
    return {"arenas": arenas, "best": best, "pooled": {n: v - top for n, v in pooled.items()}}


if __name__ == "__main__":
    contest = recompute(Path(sys.argv[1]), Path(sys.argv[2]))
    for arena, row in contest["arenas"].items():
        told = ", ".join(f"{n} {np.mean([*by.values()]):+.2f}" for n, by in row.items())
        print(f"{arena}: {told}; best MTL {contest['best'][arena]}")
    print(
        "pooled difference to the best MTL:",
        {n: round(v, 2) for n, v in contest["pooled"].items()},
    )
