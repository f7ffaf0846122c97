"""What measuring surprise takes."""

from __future__ import annotations

from collections import Counter

from cos_interp.analyses.driver.outlook import Outlook, Use
from cos_interp.analyses.plausibility import PlausibilityConfig
from cos_interp.analyses.plausibility.measure import SIDES, chosen
from cos_interp.analyses.plausibility.pairs import clip_pairs


def foresee(config: PlausibilityConfig, outlook: Outlook) -> list[Use]:
    """Of both clips of a pair: the forwards by which the loop is learned, those of its last step, and those of each noise and
    step."""
    count, calls = len(clip_pairs(config)), outlook.run().calls
    of_step = Counter(call.step for call in calls)
    learned = sum(rows for _, rows in {(call.expert, sum(c.forward == call.forward for c in calls)) for call in calls})
    asked = config.noises * sum(of_step[step] for step in chosen(config))
    each = len(SIDES) * count * outlook.model.layers
    return [
        Use("the loop of each clip, one forward an expert", blocks=each * learned),
        Use("given frames, one step", blocks=each * of_step[outlook.steps - 1]),
        Use("losses", blocks=each * asked, decoded=1, disk=len(SIDES) * count * outlook.shape.clip_bytes),
    ]
