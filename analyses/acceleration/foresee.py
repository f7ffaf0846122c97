"""What an acceleration run takes."""

from __future__ import annotations

from cos_interp.analyses.acceleration import AccelerationConfig
from cos_interp.analyses.acceleration.measure import SHOWN, cells_of, experts_of, pieces
from cos_interp.analyses.acceleration.saving import parts
from cos_interp.analyses.driver.outlook import Outlook, Use
from cos_interp.analyses.kit.choice import TEST, kept
from cos_interp.interp.batch import chunks

CONTROLS = 2  # schedules beside the random ones: the chosen one, and whole steps


def foresee(config: AccelerationConfig, outlook: Outlook) -> list[Use]:
    """Of every item that chooses the run itself and a row a cell and method; of the others a row a schedule; the run itself once
    more with every batch of rows."""
    asked = [piece for piece, _ in pieces(config) if piece.problem is not None]
    count = {stage: sum(piece.stage == stage for piece in asked) for stage in ("map", "test")}
    run = outlook.run()
    mapped = len(config.methods) * len(cells_of(config, experts_of(run), outlook.model.layers, run.branches))
    asked_about = len(config.methods) * len(config.asked)
    mapped, tested = mapped + asked_about, len(config.savings) * (CONTROLS + config.draws) + asked_about
    clip = outlook.shape.clip_bytes
    shown = (1 + len(SHOWN)) * sum(p.stage == TEST and p.problem is not None and kept(p.problem, clip) for p in asked)
    judged = any(piece.problem.judged for piece in asked if piece.problem is not None)
    given = parts(outlook.model.hook_names)

    def rows(what: str, each: int, stage: str, disk: int = 0) -> Use:
        together = min(config.batch, 1 + each)
        held = together * outlook.kept(given, (0,))  # what every part gave last
        blocks = count[stage] * (each + len(list(chunks(range(each), config.batch - 1)))) * outlook.blocks()
        return Use(what, blocks=blocks, rows=together, held=held, decoded=int(judged), disk=disk)

    return [
        Use("runs as they are", count["map"]),
        rows(f"runs with a cell saved, {count['map'] * mapped:,} rows", mapped, "map"),
        rows(f"runs by a schedule, {count['test'] * tested:,} rows", tested, "test", shown * clip),
    ]
