"""Soups: φ* as the mean of the prompts that several runs of one configuration have learned.

A soup of M at n steps is the mean of M members' φ* after n steps each (last iterates or averages,
as the configuration says), so that it costs M times what one member costs (Wortsman et al. 2022,
https://arxiv.org/abs/2203.05482). All members begin at one start, that of the soup's upstream seed
s, since a mean of prompts from different starts is near none of them::

    member 0        the run of seed s itself, which is thus shared with every search that has it
    member m ≥ 1    the run of seed derive(s, "soup", m) from the start of seed s
    φ*(n)           1/M Σ_m φ*_m(n)

The seeds of members do not depend on M: a larger soup takes over the members of a smaller one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mpt.keys import key_of
from mpt.seeds import derive

if TYPE_CHECKING:
    from torch import Tensor

    from mpt.config import UpstreamConfig


def members_of(config: UpstreamConfig, root_seed: int) -> tuple[UpstreamConfig, ...]:
    """Return the configurations of a soup's members, its own one where it is no soup.

    Args:
        config: with `soup` members.
        root_seed: seed of the soup where it has none of its own.
    """
    first = dataclasses.replace(config, soup=1)
    root = root_seed if config.seed is None else config.seed
    start = root if config.start_seed is None else config.start_seed
    others = (
        dataclasses.replace(first, seed=derive(root, "soup", number), start_seed=start)
        for number in range(1, config.soup)
    )
    return (first, *others)


def soup_key(members: Sequence[str]) -> str:
    """Return the key of what the trajectories of these keys give: one is itself."""
    return members[0] if len(members) == 1 else key_of("soup", {"members": list(members)})


def mean_prompt(prompts: Sequence[Tensor]) -> Tensor:
    """Return the mean [P, d] of prompts [P, d], summed in their order."""
    total = prompts[0].clone()
    for prompt in prompts[1:]:
        total += prompt
    return total / len(prompts)
