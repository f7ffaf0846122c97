"""What a recovery run takes."""

from __future__ import annotations

from cos_interp.analyses.driver.outlook import Outlook, Use
from cos_interp.analyses.kit.problems import spread
from cos_interp.analyses.recovery import RecoveryConfig
from cos_interp.analyses.recovery.measure import givers, pieces, steps_of


def foresee(config: RecoveryConfig, outlook: Outlook) -> list[Use]:
    """A generation an item and donor, and what is left of one for every donor, share and step of an injection."""
    asked = [piece for piece, _ in pieces(config)]
    donors = [givers(config, *piece) for piece in asked]
    runs = sum(giver is not None for found in donors for _, giver in found)
    rows = len(config.doses) * sum(map(len, donors))
    left = sum(map(outlook.left, steps_of(config)))
    together = min(config.batch, len(config.doses) * max(map(len, donors), default=0))
    shown = sum(problem.judged and problem.kept(outlook.shape.clip_bytes) for problem, _ in asked)
    clips = 1 + max(map(len, donors), default=0) * (1 + len(steps_of(config)) + len(spread(outlook.steps)))
    return [
        Use("undisturbed runs", len(asked), decoded=1),
        Use("runs of the donors", runs, decoded=1),
        Use(f"injected runs, {rows * len(steps_of(config)):,} rows", blocks=rows * left, rows=together, decoded=together,
            disk=shown * clips * outlook.shape.clip_bytes),
    ]  # fmt: skip
