"""What the lines of a user's files say of the calls that they ask for: sizes, and whatever changes how often blocks run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cos_interp.analyses.driver import inputs, prompt_lists
from cos_interp.analyses.driver.settings import AnalysisConfig

Said = Mapping[str, Any]
OF_NO_CALL = ("prompt", *inputs.PICTURES, *inputs.OF_SCORER, "seed")  # keys on which neither sizes nor calls depend
COUNTED = ("pairs", "check_pairs", "items")  # settings that say how many lines of pairs run


def said(call: Mapping[str, Any], config: AnalysisConfig) -> Said:
    """Of a line, or a problem's keywords, what its size and its calls depend on, and the settings do not say for all. A negative
    prompt counts, its text does not."""
    kept = {key: value for key, value in call.items() if key not in (*OF_NO_CALL, *config.OWN)}
    return kept | ({"negative_prompt": "it"} if kept.get("negative_prompt") else {})


def of_files(config: AnalysisConfig) -> list[Said]:
    """Of each line that runs, of pairs of each side; one that says nothing where the settings name no file."""
    prompts, pairs = (getattr(config, name, None) for name in ("prompts", "pair_file"))
    if pairs is not None:
        most = [getattr(config, name) for name in COUNTED if hasattr(config, name)]
        lines = inputs.json_lines(Path(pairs), "--pair-file", "{}")[: None if None in most else sum(most)]
        given = [line.get(side) for _, line in lines for side in ("clean", "corrupt")]
    else:
        given = [entry.line for entry in prompt_lists.entries(Path(prompts), "--prompts")] if prompts is not None else []
    return [said(line, config) for line in given if isinstance(line, dict)] or [{}]


def boxes_of(config: AnalysisConfig) -> tuple[str, ...]:
    """The names of boxes that every pair of a file has; none where there is no file."""
    path = getattr(config, "pair_file", None)
    if path is None:
        return ()
    drawn = [line.get("boxes", {}) for _, line in inputs.json_lines(Path(path), "--pair-file", "{}")]
    return tuple(name for name in drawn[0] if all(name in boxes for boxes in drawn))
