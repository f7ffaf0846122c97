"""The analyses by name: where each lives, its settings, and the help of its command. Light; loads nothing heavy."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from cos_interp.analyses import settings

if TYPE_CHECKING:
    from cos_interp.analyses.base import AnalysisResult
    from cos_interp.analyses.experiment import Experiment, Report


@dataclass(frozen=True)
class Entry:
    """One analysis. ``module`` holds an ``EXPERIMENT``; ``seconds``: what its default size takes on two cores, its share of a
    dossier's budget."""

    name: str
    module: str
    config: type[settings.AnalysisConfig]
    about: str
    examples: tuple[str, ...]
    seconds: int = 60

    def load(self) -> Experiment:
        return importlib.import_module(f"cos_interp.analyses.{self.module}").EXPERIMENT

    def runner(self) -> Callable[..., tuple[AnalysisResult, Report]]:
        """``runner(config, folder, fresh=..., workers=..., progress=...)``: run, report, and what was found."""
        module = importlib.import_module(f"cos_interp.analyses.{self.module}")
        from cos_interp.analyses import experiment

        if hasattr(module, "EXPERIMENT"):
            return partial(experiment.run_and_report, module.EXPERIMENT)
        return module.run_and_report


_ENTRIES = (
    Entry(
        "patching", "patching_run", settings.PatchingConfig,
        "Activation patching over steps, layers and token groups, with controls.",
        (
            "cos analyze patching",
            "cos analyze patching --task place --pair-kind prompt --pairs 8 --out runs/place",
            "cos analyze patching --sites attn.hook_z --heads 0,1,2,3 --steps 0:10:3 --tokens goals,donor_route",
            "cos analyze patching --range single --direction noising --out runs/single",
        ),
        seconds=160,
    ),
    Entry(
        "chain-of-steps", "chain_of_steps", settings.ChainOfStepsConfig,
        "Accuracy of the clean estimate at every step; steps against frames.",
        ("cos analyze chain-of-steps", "cos analyze chain-of-steps --items 125 --noises 1 --out runs/full"),
        seconds=75,
    ),
    Entry(
        "commitment", "commitment", settings.CommitmentConfig,
        "At which step the plan is chosen: re-noising, transplants, early screening of seeds.",
        ("cos analyze commitment", "cos analyze commitment --tasks maze --items 60 --noises 6 --out runs/commitment-maze"),
        seconds=95,
    ),
    Entry(
        "self-correction", "self_correction", settings.SelfCorrectionConfig,
        "Answers that change along the steps without any injection.",
        ("cos analyze self-correction", "cos analyze self-correction --tasks maze,place --items 125 --out runs/corrections"),
        seconds=40,
    ),
    Entry(
        "ensemble", "ensemble", settings.EnsembleConfig,
        "Training-free ensemble of several seeds, against best-of-K and majority vote.",
        ("cos analyze ensemble", "cos analyze ensemble --items 125 --tensors hidden,v --steps 0,1,2 --out runs/ensemble-full"),
        seconds=80,
    ),
    Entry(
        "noise", "noise", settings.NoiseConfig,
        "Noise at a step against noise at a frame, also at equal dose.",
        ("cos analyze noise", "cos analyze noise --tasks maze --modes renoise --doses 0.25,0.5,1 --out runs/doses"),
        seconds=170,
    ),
    Entry(
        "propagation", "propagation", settings.PropagationConfig,
        "Disturb one step and compare all later states (CKA).",
        ("cos analyze propagation", "cos analyze propagation --mode add --layers 0,3,7 --out runs/add"),
        seconds=90,
    ),
    Entry(
        "recovery", "recovery", settings.RecoveryConfig,
        "Inject a wrong answer at a step; is the right one back, and when?",
        ("cos analyze recovery", "cos analyze recovery --donors prompt --steps 0:20:2 --doses 1 --out runs/prompt"),
        seconds=160,
    ),
    Entry(
        "layers", "layers", settings.LayersConfig,
        "Token energy by layer, and ablation of layers by step.",
        ("cos analyze layers", "cos analyze layers --tasks maze --items 30 --layers 2,3,4 --ablations skip --out runs/skip"),
        seconds=170,
    ),
    Entry(
        "swap", "swap", settings.SwapConfig,
        "Swap the visual tokens of two runs at one step, layer by layer.",
        (
            "cos analyze swap",
            "cos analyze swap --tasks place --pair-kind image --steps 0,4,8 --variants block,cross --out runs/swap-place",
        ),
        seconds=200,
    ),
    Entry(
        "trajectory", "trajectory_map", settings.TrajectoryConfig,
        "Maps of latents and layer states along the steps; distances between runs.",
        ("cos analyze trajectory", "cos analyze trajectory --tasks maze --items 60 --noises 6 --out runs/trajectory-maze"),
        seconds=80,
    ),
    Entry(
        "memory", "memory", settings.MemoryConfig,
        "Follow the first frame's objects: attention, decodability while hidden, tracking, knock-out.",
        ("cos analyze memory", "cos analyze memory --tasks occlusion --items 125 --knocked 60 --out runs/memory-occlusion"),
        seconds=180,
    ),
    Entry(
        "attention", "attention", settings.AttentionConfig,
        "Attention maps of queries and prompt words; head statistics.",
        ("cos analyze attention", "cos analyze attention --layers 2,3 --heads 0,1 --query 4,2,3 --words red --out runs/maps"),
        seconds=25,
    ),
    Entry(
        "perception-before-action", "perception", settings.PerceptionConfig,
        "At which step objects are localised, and at which motion appears.",
        ("cos analyze perception-before-action", "cos analyze perception-before-action --tasks maze --items 125 --out runs/lag"),
        seconds=30,
    ),
    Entry(
        "probes", "probing", settings.ProbesConfig,
        "Linear probes by layer and step, with baselines, transfer, and a test of use.",
        (
            "cos analyze probes",
            "cos analyze probes --tasks maze --targets first_class,next_direction,solved --kind logistic --out runs/maze-probes",
        ),
        seconds=145,
    ),
    Entry(
        "all", "dossier", settings.DossierConfig,
        "The dossier: every experiment at a size that fits a time budget, with the verdict on each claim.",
        ("cos analyze all", "cos analyze all --budget 2h --model path/to/model --only chain-of-steps,commitment --out runs/mine"),
    ),
)  # fmt: skip
ENTRIES: dict[str, Entry] = {entry.name: entry for entry in _ENTRIES}
