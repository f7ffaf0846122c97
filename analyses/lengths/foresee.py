"""What long items take."""

from __future__ import annotations

from cos_interp.analyses.driver.outlook import Outlook, Use
from cos_interp.analyses.lengths import LengthsConfig
from cos_interp.analyses.lengths.measure import pieces

MORE = "each of more operations than counted here, for the frames"


def foresee(config: LengthsConfig, outlook: Outlook) -> list[Use]:
    """A long video a scene, for mazes two, and one as long as trained ones."""
    asked = [piece for piece, _ in pieces(config)]
    long = sum(2 if piece.task == "maze" else 1 for piece in asked)
    first = sum(piece.index == 0 for piece in asked)
    return [
        Use("runs of longer videos", long, decoded=2, disk=2 * first * outlook.shape.clip_bytes, more=MORE),
        Use("runs as long as trained", len(asked), decoded=1),
    ]
