"""The experiments: ``EXPERIMENTS`` says what there is, :func:`run` runs one, :func:`load` reads a finished run.

>>> from cos_interp import analyses
>>> analyses.EXPERIMENTS["recovery"].about
'Inject a wrong answer at a step; is the right one back, and when?'
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cos_interp.analyses import dossier
from cos_interp.analyses.driver.entry import Entry
from cos_interp.analyses.driver.registry import entries
from cos_interp.analyses.driver.settings import Loading

if TYPE_CHECKING:
    from cos_interp.analyses.driver.base import AnalysisResult
    from cos_interp.analyses.driver.experiment import Report
    from cos_interp.analyses.driver.loaded import LoadedRun
    from cos_interp.interp.model import HookedVideoPipeline

__all__ = ["EXPERIMENTS", "draw", "load", "run", "runner"]

EXPERIMENTS: dict[str, Entry] = {**entries(), dossier.ENTRY.name: dossier.ENTRY}


def __dir__() -> list[str]:
    return __all__


def runner(name: str) -> Callable[..., tuple[AnalysisResult, Report]]:
    """``runner(name)(config, folder, fresh=..., workers=..., progress=...)``: run, report, and what was found.

    InterpError, before anything is loaded, for a run that does not fit within the limits that its settings state.
    """

    def played(config: Any, folder: Path, **ways: Any) -> tuple[AnalysisResult, Report]:
        from cos_interp.analyses.before import refuse_over

        refuse_over(name, config, folder, ways.get("workers"), ways.get("model"))
        if name == dossier.ENTRY.name:
            from cos_interp.analyses.dossier.run import run_and_report

            return run_and_report(config, folder, **ways)
        from cos_interp.analyses.driver import experiment, registry

        return experiment.run_and_report(registry.load(name), config, folder, **ways)

    return played


def run(
    name: str,
    *,
    out: str | Path | None = None,
    model: HookedVideoPipeline | str = "organism",
    fresh: bool = False,
    workers: int | None = None,
    **settings: Any,
) -> LoadedRun:
    """Run an experiment, or continue it, write its report, and load what it left: ``run("recovery", items=20, out="runs/r")``.

    ``settings`` are the fields of ``EXPERIMENTS[name].config``. ``model``: what ``--model`` takes, or a loaded model, which is
    used as it is, where you have placed it, with its ``defaults``; the run then says that it was given, with the digest of its
    weights in memory. ``out``: the run folder,
    ``runs/<name>`` by default. Raises ValueError for an unknown experiment or setting (pydantic's, which names the field),
    RunError for a folder that holds another run, InterpError for a run that takes more than ``memory``, ``host_memory`` and
    ``disk`` allow.
    """
    if name not in EXPERIMENTS:
        raise ValueError(f"no experiment {name!r}; there are {', '.join(EXPERIMENTS)}")
    _known_settings(name, settings)
    folder = Path("runs") / name if out is None else Path(out)
    loaded = None if isinstance(model, str) else model
    if loaded is not None and (asked := sorted(set(settings) & {*Loading.PLACING, *Loading.CALL, "revision"})):
        raise ValueError(
            f"{asked[0]}={settings[asked[0]]!r}: a model that is given is used as it is: place model.pipe yourself and put "
            "keywords of its calls into model.defaults, or give the model's name"
        )
    config = EXPERIMENTS[name].config(**{**settings, "model": model if isinstance(model, str) else model.name})
    runner(name)(config, folder, model=loaded, fresh=fresh, workers=workers)
    return load(folder)


def _known_settings(name: str, settings: Mapping[str, Any]) -> None:
    """ValueError for a setting that the experiment does not have, with the one that was meant."""
    from cos_interp.analyses.driver.command import flag

    known = list(EXPERIMENTS[name].config.model_fields)
    by_option = {flag(field)[2:].replace("-", "_"): field for field in known}
    for asked in settings:
        if asked not in known:
            near = difflib.get_close_matches(asked, known, 1)
            meant = by_option.get(asked) or (near[0] if near else None)
            hint = f"did you mean {meant}?" if meant else f"there are {', '.join(known)}"
            raise ValueError(f"{name} has no setting {asked!r}: {hint}")


def load(folder: str | Path) -> LoadedRun:
    """What a finished run left. Raises RunError for a folder that holds no finished run, or one that this version cannot read."""
    from cos_interp.analyses.driver.loaded import read

    return read(Path(folder), EXPERIMENTS)


def draw(folder: str | Path) -> Path:
    """Draw the page of a finished run, or dossier, again from what it left, without a model; returns the page. Raises RunError
    for a folder without a finished run."""
    from cos_interp.analyses.driver.store import RunStore

    if (RunStore(Path(folder)).facts() or {}).get("analysis") == dossier.ENTRY.name:
        from cos_interp.analyses.dossier import again

        return again.draw_again(Path(folder))
    from cos_interp.analyses.driver.drawing import draw_again

    return draw_again(Path(folder), EXPERIMENTS)
