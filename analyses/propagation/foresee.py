"""What a propagation run takes."""

from __future__ import annotations

from cos_interp.analyses.driver.outlook import Outlook, Use
from cos_interp.analyses.kit.problems import chosen_steps, problems
from cos_interp.analyses.propagation import PropagationConfig
from cos_interp.analyses.propagation.measure import shown_steps
from cos_interp.interp.batch import chunks


def foresee(config: PropagationConfig, outlook: Outlook) -> list[Use]:
    """A generation an item, then one a disturbed step, and the undisturbed one again with every batch of these."""
    asked, disturbed = problems(config), chosen_steps(config, config.num_inference_steps)
    count, clip = len(asked), outlook.shape.clip_bytes
    parts = list(chunks(disturbed, config.batch))
    rows = 1 + max(map(len, parts))
    shown = 1 + len(shown_steps(disturbed))
    return [
        Use("undisturbed runs", count * (1 + len(parts)), decoded=1),
        Use("disturbed runs", count * len(disturbed), rows=rows, disk=sum(p.kept(clip) for p in asked) * shown * clip),
    ]
