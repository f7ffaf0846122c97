"""What an analysis goes over: the suite's items with their verifier, or the user's own prompts without one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from cos_interp.analyses.driver import inputs, prompt_lists, saying
from cos_interp.analyses.driver.kept import keeps
from cos_interp.analyses.driver.settings import AnalysisConfig, ScoredConfig, SuiteConfig, TasksConfig
from cos_interp.analyses.kit.seeds import seed_for
from cos_interp.interp.call import own_words, unfit
from cos_interp.interp.errors import InterpError
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.own_size import own_size
from cos_interp.interp.run.prediction import is_flow
from cos_interp.interp.trajectory import Run
from cos_interp.tasks import Case, ClipTask, Item, Task, Verdict, get_task, grid, scorers, suite
from cos_interp.tasks.base import outcome
from cos_interp.tasks.clips import cases_of, task_of
from cos_interp.tasks.scorer import Scorer, has_verdict, is_graded, score
from cos_interp.tasks.scorers.command import command_scorer

CLIPS = 125  # cases of a task of clips that are its first; to confirm, those after them are taken
SIZE = {"height": grid.ROWS * grid.CELL, "width": grid.COLS * grid.CELL, "num_frames": grid.FRAMES}


@dataclass(frozen=True)
class Problem:
    """One thing to generate. ``call``: the pipeline's keywords; ``index``: its place among the items of its task, the pairs of
    its kind, or the user's own; ``item``: None when it is none of the grid. ``scorer``: of what is the user's own, if there is
    one: without item and scorer there is no verdict."""

    name: str
    call: dict[str, Any]
    seed: int
    index: int
    item: Item | None = None
    source: str = field(default="", compare=False)  # the line of a file of the user's
    case: Case | None = field(default=None, compare=False)  # of the user's own: what its scorer is told
    scorer: Scorer | None = field(default=None, compare=False)
    several: bool = field(default=False, compare=False)  # the first of its task that has several right answers

    @property
    def shown(self) -> bool:
        """Whether it is shown where two of a task are: the first, and the first that could end in several ways."""
        return self.first or self.several

    def kept(self, clip_bytes: int) -> bool:
        """Whether its clips, of so many bytes each, are kept for the page."""
        return keeps(self.index, clip_bytes)

    @property
    def first(self) -> bool:
        """Whether it is the first of its task, the one that is shown."""
        return self.index == 0

    @property
    def task(self) -> str:
        return self.item.task if self.item else self.case.group if self.case else "prompts"

    @property
    def judged(self) -> bool:
        """Whether there is a verdict on its videos: a task's verifier, or the user's scorer, which holds one answer right."""
        return self.item is not None or self.scorer is not None

    def noise(self, number: int) -> int:
        """The seed of the problem's noise ``number``; 0 is its own."""
        return self.seed if number == 0 else seed_for("further noise", self.seed, number)

    @property
    def facts(self) -> dict[str, Any]:
        """Columns that every row of results carries."""
        item = self.item
        of_own = {"difficulty": None, "unique": self.judged or None}
        about = {"difficulty": item.difficulty, "unique": item.unique} if item else of_own
        return {"problem": self.name, "task": self.task, **about}


def problems(config: SuiteConfig) -> list[Problem]:
    """The problems of a configuration, each with its own noise seed, whatever the others are."""
    return items(config) if config.prompts is None else _own(config)


def items(config: TasksConfig) -> list[Problem]:
    """The items that a configuration asks for: of the suite, or others that confirm."""
    return [problem for text in config.tasks for problem in _of_task(config, task_of(text))]


def _of_task(config: TasksConfig, task: Task | ClipTask) -> Iterator[Problem]:
    if not isinstance(task, Task):
        yield from _cases(config, task)
        return
    drawn = suite.confirmation_items(task.name, config.seed) if config.confirm else suite.task_items(task.name)
    asked = drawn[: config.items]
    several = next((i for i, item in enumerate(asked) if not item.unique), None)
    for i, item in enumerate(asked):
        seed = seed_for("noise", *config.about, task.name, i)
        yield Problem(f"{task.name}-{i:03d}", item_call(item), seed, i, item, several=i == several)


def _cases(config: TasksConfig, task: ClipTask) -> Iterator[Problem]:
    """The cases of a task of clips, which its own judge scores; to confirm, those after the first."""
    first = CLIPS if config.confirm else 0
    for i, case in enumerate(cases_of(task, first, config.items)):
        call: dict[str, Any] = {"prompt": case.prompt}
        if case.image is not None:
            call["image"] = Image.fromarray(case.image)
        seed, told = seed_for("noise", *config.about, task.name, i), replace(case, group=task.name)
        source = f"case {case.name} of {task.name}"
        yield Problem(f"{task.name}-{i:03d}", call, seed, i, source=source, case=told, scorer=task.judge)


def item_call(item: Item) -> dict[str, Any]:
    """What the pipeline is told of an item."""
    return {"prompt": item.prompt, "image": Image.fromarray(item.first_frame)}


def _own(config: SuiteConfig) -> list[Problem]:
    path, scorer = Path(str(config.prompts)), scorer_of(config)
    found = [_of_entry(config, entry, place, scorer) for place, entry in enumerate(prompt_lists.entries(path, "--prompts"))]
    refuse_twice((problem.source, [problem]) for problem in found)
    return found


def refuse_twice(asked: Iterable[tuple[str, Sequence[Problem]]]) -> None:
    """InterpError for what stands there again, noise and all: it would count twice. ``asked``: its place in the file, and what
    is generated."""
    seen: dict[tuple[int, ...], list[tuple[str, list[Any]]]] = {}
    for where, parts in asked:
        said = [(p.call, p.case and (p.case.expected, p.case.reference)) for p in parts]
        others = seen.setdefault(tuple(p.seed for p in parts), [])
        if twin := next((place for place, other in others if other == said), None):
            raise InterpError(f"{where} is {twin.rpartition(', ')[2]} again: leave it out, or give it another seed")
        others.append((where, said))


def _of_entry(config: SuiteConfig, entry: prompt_lists.Entry, place: int, scorer: Scorer | None) -> Problem:
    given = {key: value for key, value in entry.line.items() if key not in inputs.OF_SCORER}
    call = inputs.keywords(entry.where, given, entry.folder, settings_of(config))
    if entry.embedded is not None:
        call["image"] = entry.embedded
    seed = call.pop("seed", seed_for("noise", *config.about, "prompts", place))
    case = own_case(f"prompt-{place:03d}", call, entry)
    return Problem(case.name, call, seed, index=place, source=entry.where, case=case, scorer=scorer)


def own_case(name: str, call: dict[str, Any], entry: prompt_lists.Entry) -> Case:
    """What a scorer is told of a line of the user's. InterpError where its reference is no file."""
    reference, folder = entry.line.get("reference"), entry.folder
    if reference is not None and not (isinstance(reference, str) and (folder / reference).is_file()):
        raise InterpError(
            f"{entry.where}: reference {reference!r} is no file: give the path of the true video, relative to the list"
        )
    image = call.get("image")
    return Case(
        name, call["prompt"], None if image is None else np.asarray(image), entry.line.get("expected"),
        reference=None if reference is None else folder / reference, folder=folder,
        group=Path(entry.key).parent.name or "prompts", key=entry.key,
    )  # fmt: skip


def scorer_of(config: ScoredConfig) -> Scorer | None:
    """The scorer that a configuration asks for; None without one. Executes the user's file."""
    if config.scorer_cmd is not None:
        return command_scorer(config.scorer_cmd, config.scorer_seconds)
    return None if config.scorer is None else scorers.scorer_of(config.scorer)


def settings_of(config: AnalysisConfig) -> dict[str, tuple[str, Any]]:
    """What the command line says for all runs, as :func:`cos_interp.analyses.driver.inputs.keywords` takes it."""
    said = {key: getattr(config, key) for key in config.OWN} | config.call()
    return {key: (saying.OPTIONS.get(key, "--set"), value) for key, value in said.items()}


def check_calls(model: HookedVideoPipeline, found: Iterable[Problem]) -> None:
    """InterpError for the first problem of the user's own that has keywords the model's pipeline does not take, or lacks one."""
    for problem in found:
        call = {**model.defaults, **model.adapter.needs, **own_words(model.pipe, problem.call)}
        if problem.source and (wrong := unfit(model.pipe, call)):
            raise InterpError(f"{problem.source}: {wrong}")


def fits(config: SuiteConfig, model: HookedVideoPipeline) -> None:
    """The check of every experiment that goes over problems."""
    if config.prompts is not None:
        check_calls(model, problems(config))
        return
    found = [task_of(text) for text in config.tasks]
    if any(not isinstance(task, Task) for task in found):
        check_calls(model, problems(config))
    if any(isinstance(task, Task) for task in found):
        fits_tasks(model, "--prompts FILE, or another model")


def fits_tasks(model: HookedVideoPipeline, instead: str) -> None:
    """InterpError for a model whose own size or number of frames is none that the tasks are drawn in; ``instead``: what to give
    in their place."""
    asked = SIZE | own_size(model.pipe, model.defaults)
    height, width, own = grid.ROWS * grid.DOTS, grid.COLS * grid.DOTS, grid.FRAMES
    times = max(1, min(asked["height"] // height, asked["width"] // width))
    makes, wants, give = [], [], []
    if asked["height"] % height or asked["width"] % width:
        makes.append(f"{asked['width']}x{asked['height']} pixels")
        wants.append(f"drawn on {width}x{height} or a whole multiple of it")
        give.append(f"--size {times * width}x{times * height}")
    if (frames := asked["num_frames"]) != own:
        makes.append(f"{frames} frames")
        wants.append(f"videos of {own} frames")
        give.append(f"--num-frames {own}")
    if makes:
        raise InterpError(
            f"{model.name} makes {' and '.join(makes)}, and the tasks are {' and '.join(wants)}: give {' '.join(give)}, {instead}"
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
    """The verdict on decoded frames ``[pixel frame, height, width, 3]``; None where nobody judges."""
    if problem.scorer is not None and problem.case is not None:
        return score(problem.scorer, frames, problem.case)
    return get_task(problem.item.task).verify(problem.item, frames) if problem.item else None


def judge_latents(model: HookedVideoPipeline, problem: Problem, latents: Tensor) -> Verdict | None:
    """The verdict on the video of final latents ``[1, ...]``, which are decoded only where somebody judges."""
    return judge(problem, model.decode(latents)[0]) if problem.judged else None


def whose(target: Problem, donor: Problem, frames: np.ndarray) -> str:
    """Whose answer a video gives: ``target``, ``donor``, ``other`` or ``undecided``, by the task's verifier, or by the scorer
    that accepts it as the one side's and not as the other's; one that accepts both tells nothing."""
    if target.item is not None and donor.item is not None:
        return outcome(get_task(target.item.task), target.item, donor.item, frames)
    found = [judge(side, frames) for side in (target, donor)]
    own, theirs = (verdict is not None and verdict.solved for verdict in found)
    if own != theirs:
        return "target" if own else "donor"
    return "other" if not own and all(verdict is not None and verdict.status == "wrong" for verdict in found) else "undecided"


def item_of(problem: Problem) -> Item:
    """The item of a problem that is a task's. ValueError for one of the user's own, which has none."""
    if problem.item is None:
        raise ValueError(f"{problem.name} has no item: it is a prompt of the user's own")
    return problem.item


def strict(problem: Problem, clips: Iterable[np.ndarray]) -> list[Verdict] | None:
    """Verdicts on decoded clips; None where nobody judges, or a scorer only grades one of them, or failed on it."""
    if not problem.judged:
        return None
    found = [verdict for clip in clips if (verdict := judge(problem, clip)) is not None]
    return found if all(map(has_verdict, found)) else None


def verdict_of(problem: Problem, frames: np.ndarray) -> Verdict:
    """The verdict on decoded frames of a problem that is a task's. ValueError for one of the user's own."""
    return get_task(problem.task).verify(item_of(problem), frames)


def verdict_columns(verdict: Verdict | None) -> dict[str, str | None]:
    if verdict is None or is_graded(verdict):
        return {"status": None, "error": None, "answer": None}
    return {"status": verdict.status, "error": verdict.error, "answer": verdict.answer}


READING = "reading "  # of a scorer: a column each


def reading_columns(verdict: Verdict) -> dict[str, float]:
    """The graded numbers of a scorer as columns."""
    return {f"{READING}{name}": value for name, value in verdict.readings.items()}


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
