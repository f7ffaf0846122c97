"""What holding two models against each other takes. Both have the same blocks, so that their calls count alike."""

from __future__ import annotations

from cos_interp.analyses.diff import DiffConfig
from cos_interp.analyses.diff.apart import ends, inputs, sites
from cos_interp.analyses.diff.regions import regions, stretches
from cos_interp.analyses.driver.outlook import Outlook, Use
from cos_interp.analyses.kit.problems import chosen_steps, problems

PLAIN, COMPARED = 2, 3  # runs: of each model; of the first one with its activations, and of the other on two kinds of inputs
UNFIT = "none where the two models' weights are of different kinds"


def foresee(config: DiffConfig, outlook: Outlook) -> list[Use]:
    """A video of each model, their activations on the same inputs, and a run of the first one for each region of the other."""
    model, count = outlook.model, len(problems(config))
    other = sum(outlook.shape.weights.values())  # is held beside the first one
    steps = chosen_steps(config)
    mine, theirs = outlook.kept(sites(model) + inputs(model), steps), outlook.kept(sites(model), steps)
    uses = [
        Use("videos of both models", PLAIN * count, decoded=1, held=other, disk=PLAIN * count * outlook.shape.clip_bytes),
        Use("activations of both on the same inputs", COMPARED * count, held=other + mine + theirs, recording=mine),
    ]
    if "weights" in config.what:
        uses.append(Use("runs with the other's weights", len(regions(model.engines)) * count, bound=True, more=UNFIT, decoded=1))
    if "activations" in config.what:
        kept = outlook.kept(ends(model))
        uses.append(
            Use("runs with the other's updates, and its own run", (1 + len(stretches(model.engines))) * count, decoded=1,
                held=other + kept, recording=kept)
        )  # fmt: skip
    return uses
