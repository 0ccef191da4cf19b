"""Which start a target is tuned from, where the target itself takes one of several.

At hand are the learned prompt, the members of a soup, and the start of plain prompt tuning, in
this order. Every (task, data seed, downstream start) takes one of them by its own train and dev
rows, those that the recipe reads; test rows are not read. `DownstreamConfig.start` says how:

chosen
    The lowest loss on these rows, before any tuning (`losses.py`).
raced
    The best dev score after the first steps of tuning, all starts side by side (`race.py`).

A study with several downstream starts has as many starts of plain prompt tuning; a target chooses
once with each of them at hand.
"""

LEARNED, VOCABULARY = "learned", "vocabulary"
"""Names of the learned prompt and of the start of plain prompt tuning."""
