"""How far an inner step goes: `python -m tools.embedded_models.inner_steps` (a minute).

The grid of inner learning rates in ``search_spaces/maml.toml`` rests on this table. At the start
of a MAML trajectory on the sources of random → random it gives, as means over episodes:

- the length of the inner step relative to the prompt, α‖g_S‖ / ‖φ‖;
- the cosine between the outer gradients of MAML and FoMAML: how much the second-order term turns
  the gradient;
- by how much the inner step lowers the query loss.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

import torch

from mpt.backbones import load_backbone
from mpt.backbones.base import Backbone
from mpt.config import UpstreamConfig
from mpt.embedded.gym import ensure_embedded_gym
from mpt.gym.catalogue import load_catalogue
from mpt.gym.episodes import EpisodeStream
from mpt.gym.fewshot import FewShotTask, load_task
from mpt.prompts import init_upstream
from mpt.seeds import numpy_generator
from mpt.upstream.losses import ItemRows, ItemsLoss
from mpt.upstream.methods import fomaml, maml
from mpt.upstream.one_episode import OnlyLoss
from tools.embedded_models.evidence import PROMPT, SEED, TEXT

RATES = (0.01, 0.1, 1.0, 10.0, 100.0)


@dataclass(frozen=True)
class InnerStep:
    """Means over episodes at one inner learning rate."""

    rate: float
    length: float
    """α‖g_S‖ / ‖φ‖."""
    cosine: float
    """Between the outer gradients of MAML and FoMAML."""
    gain: float
    """Query loss before the inner step minus after it."""


def inner_step(
    backbone: Backbone, tasks: Sequence[FewShotTask], rate: float, episodes: int
) -> InnerStep:
    """Measure the first episodes of a trajectory at its starting prompt.

    Args:
        backbone: the frozen model.
        tasks: the items.
        rate: inner learning rate α.
        episodes: how many, from the first on.
    """
    config = UpstreamConfig(inner_lr=rate, batch_size=4)
    stream = EpisodeStream(tasks, config, SEED)
    rows = ItemRows(backbone, tasks, TEXT)
    rng = numpy_generator(SEED, "init", "upstream")
    prompt = init_upstream(backbone, [task.name for task in tasks], PROMPT.length, rng)
    lengths, cosines, gains = [], [], []
    for index in range(episodes):
        episode = stream.episode(index)
        loss = OnlyLoss(ItemsLoss(backbone, rows, [episode.item]))
        start = prompt.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(loss.support(start, episode.support[0]), start)
        exact, after = maml.outer_gradient(loss, prompt, episode, config)
        first, _ = fomaml.outer_gradient(loss, prompt, episode, config)
        with torch.no_grad():
            before = float(loss.query(prompt, episode.query))
        lengths.append(float(rate * gradient.norm() / prompt.norm()))
        both = torch.stack([exact.flatten(), first.flatten()])
        cosines.append(float(torch.nn.functional.cosine_similarity(both[0], both[1], dim=0)))
        gains.append(before - after)
    return InnerStep(rate, mean(lengths), mean(cosines), mean(gains))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="How far an inner step goes, as a table.")
    parser.add_argument("--episodes", type=int, default=12, help="episodes the means run over")
    episodes = parser.parse_args().episodes
    backbone, gym = load_backbone("embedded"), ensure_embedded_gym()
    catalogue = load_catalogue(gym)
    names = catalogue.partition("random_to_random").source
    tasks = [load_task(gym, catalogue.task(name), seed) for name in names for seed in (13, 21)]
    print(
        "| inner lr | step / prompt | cos(MAML, FoMAML) | query loss gained |\n|---|---|---|---|"
    )
    for rate in RATES:
        row = inner_step(backbone, tasks, rate, episodes)
        print(f"| {rate:g} | {row.length:.2%} | {row.cosine:.2f} | {row.gain:+.3f} |", flush=True)


if __name__ == "__main__":
    main()
