"""What an analysis goes over: the suite's items with their verifier, or the user's own prompts without one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cos_interp.analyses.driver import inputs
from cos_interp.analyses.driver.settings import AnalysisConfig, SuiteConfig, TasksConfig
from cos_interp.analyses.kit.seeds import seed_for
from cos_interp.interp.call import unfit
from cos_interp.interp.errors import InterpError
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.own_size import own_size
from cos_interp.interp.run.prediction import is_flow
from cos_interp.interp.trajectory import Run
from cos_interp.tasks import Item, Verdict, get_task, grid, suite

EXAMPLE = '{"prompt": "a red ball", "image": "ball.png"}'
SIZE = {"height": grid.ROWS * grid.CELL, "width": grid.COLS * grid.CELL, "num_frames": grid.FRAMES}


@dataclass(frozen=True)
class Problem:
    """One thing to generate. ``call``: the pipeline's keywords; ``index``: its place among the items of its task, the pairs of
    its kind, or the user's own; ``item``: None when there is no verifier."""

    name: str
    call: dict[str, Any]
    seed: int
    index: int
    item: Item | None = None
    source: str = field(default="", compare=False)  # the line of a file of the user's

    @property
    def first(self) -> bool:
        """Whether it is the first of its task, the one that is shown."""
        return self.index == 0

    @property
    def task(self) -> str:
        return self.item.task if self.item else "prompts"

    def noise(self, number: int) -> int:
        """The seed of the problem's noise ``number``; 0 is its own."""
        return self.seed if number == 0 else seed_for("further noise", self.seed, number)

    @property
    def facts(self) -> dict[str, Any]:
        """Columns that every row of results carries."""
        item = self.item
        about = {"difficulty": item.difficulty, "unique": item.unique} if item else {"difficulty": None, "unique": None}
        return {"problem": self.name, "task": self.task, **about}


def problems(config: SuiteConfig) -> list[Problem]:
    """The problems of a configuration, each with its own noise seed, whatever the others are."""
    return items(config) if config.prompts is None else _own(config)


def items(config: TasksConfig) -> list[Problem]:
    """The items that a configuration asks for: of the suite, or such as no rule has seen."""
    of = suite.confirmation_items if config.confirm else suite.task_items
    chosen = [(task, i, item) for task in config.tasks for i, item in enumerate(of(task)[: config.items])]
    return [
        Problem(f"{task}-{i:03d}", item_call(item), seed_for("noise", *config.about, task, i), i, item)
        for task, i, item in chosen
    ]


def item_call(item: Item) -> dict[str, Any]:
    """What the pipeline is told of an item."""
    return {"prompt": item.prompt, "image": Image.fromarray(item.first_frame)}


def _own(config: SuiteConfig) -> list[Problem]:
    path, out = Path(str(config.prompts)), []
    for place, (number, line) in enumerate(inputs.json_lines(path, "--prompts", EXAMPLE)):
        where = f"--prompts {path}, line {number}"
        call = inputs.keywords(where, line, path.parent, settings_of(config))
        seed = call.pop("seed", seed_for("noise", *config.about, "prompts", place))
        out.append(Problem(f"prompt-{place:03d}", call, seed, index=place, source=where))
    return out


def settings_of(config: AnalysisConfig) -> dict[str, tuple[str, Any]]:
    """What the command line says for all runs, as :func:`cos_interp.analyses.driver.inputs.keywords` takes it."""
    options = {"num_inference_steps": "--num-steps", "guidance_scale": "--guidance"}
    return {key: (option, getattr(config, key)) for key, option in options.items()}


def check_calls(model: HookedVideoPipeline, found: Iterable[Problem]) -> None:
    """InterpError for the first problem of the user's own that has keywords the model's pipeline does not take, or lacks one."""
    for problem in found:
        if problem.source and (wrong := unfit(model.pipe, {**model.defaults, **model.adapter.needs, **problem.call})):
            raise InterpError(f"{problem.source}: {wrong}")


def fits(config: SuiteConfig, model: HookedVideoPipeline) -> None:
    """The check of every experiment that goes over problems."""
    if config.prompts is not None:
        check_calls(model, problems(config))
    else:
        fits_tasks(model, "--prompts FILE, or another model")


def fits_tasks(model: HookedVideoPipeline, instead: str) -> None:
    """InterpError for a model whose own size is none that the tasks are drawn in; ``instead``: what to give in their place."""
    asked = SIZE | own_size(model.pipe, model.defaults)
    height, width = grid.ROWS * grid.DOTS, grid.COLS * grid.DOTS
    if asked["height"] % height or asked["width"] % width:
        times = max(1, min(asked["height"] // height, asked["width"] // width))
        raise InterpError(
            f"{model.name} makes {asked['width']}x{asked['height']} pixels, and the tasks are drawn on {width}x{height} or a "
            f"whole multiple of it: give --size {times * width}x{times * height}, {instead}"
        )


def each_problem(config: SuiteConfig) -> list[tuple[Problem, list[str]]]:
    """The pieces of an experiment that has one unit a problem, named after it."""
    return [(problem, [problem.name]) for problem in problems(config)]


def arguments(model: HookedVideoPipeline, config: AnalysisConfig, problem: Problem, seed: int | None = None) -> dict[str, Any]:
    """Pipeline keywords of a problem."""
    generation = {"num_inference_steps": config.num_inference_steps, "guidance_scale": config.guidance_scale}
    return _keywords(model, problem.call, problem.seed if seed is None else seed, problem.item is not None, generation)


def call_for(model: HookedVideoPipeline, item: Item, seed: int, **generation: Any) -> dict[str, Any]:
    """Pipeline keywords of an item."""
    return _keywords(model, item_call(item), seed, True, generation)


def _keywords(
    model: HookedVideoPipeline, call: dict[str, Any], seed: int, of_task: bool, generation: dict[str, Any]
) -> dict[str, Any]:
    """With what the model's family needs; the size is the model's own. A task's item is without its picture where the model
    takes none."""
    given = {k: v for k, v in call.items() if k != "image" or model.takes_image or not of_task}
    return {**generation, **model.adapter.needs, **given, "seed": seed}


def needs_flow(config: SuiteConfig, model: HookedVideoPipeline) -> None:
    """The check of analyses that make states of their own: InterpError where these would not be the model's."""
    fits(config, model)
    if not is_flow(model.pipe.scheduler):
        name = type(model.pipe.scheduler).__name__
        raise InterpError(
            f"this experiment makes states x_t = (1 - sigma) x0 + sigma noise, and {name} has others: "
            "run it on a flow-matching model"
        )


def generate(model: HookedVideoPipeline, config: SuiteConfig, problem: Problem, seed: int | None = None) -> Run:
    return model.run(**arguments(model, config, problem, seed))


def judge(problem: Problem, frames: np.ndarray) -> Verdict | None:
    """The verdict on decoded frames ``[pixel frame, height, width, 3]``; None when the problem has no verifier."""
    return get_task(problem.item.task).verify(problem.item, frames) if problem.item else None


def item_of(problem: Problem) -> Item:
    """The item of a problem that is a task's. ValueError for one of the user's own, which has none."""
    if problem.item is None:
        raise ValueError(f"{problem.name} has no item: it is a prompt of the user's own")
    return problem.item


def verdict_of(problem: Problem, frames: np.ndarray) -> Verdict:
    """The verdict on decoded frames of a problem that is a task's. ValueError for one of the user's own."""
    return get_task(problem.task).verify(item_of(problem), frames)


def judge_all(problem: Problem, frames: Sequence[np.ndarray]) -> list[Verdict | None]:
    return [judge(problem, clip) for clip in frames]


def verdict_columns(verdict: Verdict | None) -> dict[str, str | None]:
    if verdict is None:
        return {"status": None, "error": None, "answer": None}
    return {"status": verdict.status, "error": verdict.error, "answer": verdict.answer}


def spread(steps: int, count: int = 8) -> tuple[int, ...]:
    """``count`` steps spread over a run of ``steps``, first and last among them."""
    return tuple(dict.fromkeys(round(k) for k in np.linspace(0, steps - 1, min(count, steps))))


def chosen_steps(config: Any, count: int = 8) -> tuple[int, ...]:
    """The steps that were asked for, or spread ones. InterpError for a step that the run does not have."""
    steps = config.steps if config.steps is not None else spread(config.num_inference_steps, count)
    bad = [s for s in steps if not 0 <= s < config.num_inference_steps]
    if bad:
        raise InterpError(f"step {bad[0]} was asked for; the runs have steps 0 to {config.num_inference_steps - 1}")
    return steps
