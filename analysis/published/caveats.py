"""What speaks against reading our numbers beside the paper's: paper and released files."""

from __future__ import annotations

from collections.abc import Mapping

CAVEATS: Mapping[str, str] = {
    "all intervals": "Cells of one upstream seed: over data seeds (or tasks, where it says so) "
    "alone; another upstream seed may lie outside. Cells marked ⁿ are means over several "
    "upstream seeds, and their intervals know of both.",
    "all ±": "The printed ± cannot be the variance over data seeds: a bootstrap over seeds "
    "gives 8 to 17 points on NP→P and about 2 elsewhere. It is not used here.",
    "all of Table 2": "The released code appends the prompt behind the input's padding, tests the "
    "last prompt instead of the best on dev, trains with batch 16 (8 on each of 2 GPUs), "
    "ends small tasks at 2000 steps and cuts the test files of 14 large tasks at 1000 "
    "rows; the paper's text says otherwise. Both are selectable here.",
    "MAML, FoMAML": "At the published inner learning rate of 3e-5, adaptation hardly moves the "
    "prompt, and MAML and FoMAML differ little (by 7e-7 on a tiny T5).",
    "Reptile": "The released code forms (φ − φ_k) / α in float32; at prompt entries of 12 to 29 "
    "and α = 3e-5 the step is below one unit in the last place, so the published "
    "Reptile is close to noise.",
    "MTL": "Multi-task learning took 280 060 steps against MAML's 5000 (56 times as many). "
    "Costs stand beside every score, and there is a view at equal budget.",
    "FT": "Fine-tuning started from plain T5 v1.1 in the released code and took 1000 steps, "
    "not 3000. On Cls→Non-Cls the authors' recorded scores give −40.38, not the "
    "printed −35.70.",
    "MAML on Non-QA→QA": "The authors' recorded scores of this cell are incomplete, so that it "
    "cannot be recomputed from them.",
    "relative gains": "A task whose baseline is near zero rules the mean: break-QDMR has 0.024 "
    "in the three X→Non-Cls settings. The median stands beside every mean.",
    "source and target": "No task is source and target of one partition, but texts are: glue-rte "
    "and superglue-rte, ethos-*, race-middle and race-high, yelp_review_full and "
    "yelp_polarity share inputs (python -m mpt.gym doctor counts them).",
    "Table 5": "No code for BART and GPT-2 was released; position, padding and "
    "generation are ours.",
    "Tables 7, 8": "Layer, energy threshold and number of samples of the similarity are not given "
    "in the paper; ours are parameters with stated defaults. It does not list the pairs of "
    "Table 7 either, only their families: ours are drawn from these with a seed, and the "
    "table lists them.",
    "Table 8": "Sources are ranked by the similarity of tuned prompts (A.7) unless a column "
    "says by inputs. Which data seed and learning rate the paper's prompts are of is not said: "
    "ours are of the first data seed and the rate with the best dev score.",
    "more shots": "A class with too few examples gives half of them to train and half to dev, "
    "as in the released code.",
    "Figure 3": "The values of the source-shot sweep are drawn but not printed, so none is "
    "compared.",
}
"""Which numbers → what a reader of a comparison with the paper must know."""
