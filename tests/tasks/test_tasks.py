"""Verifiers: all true videos pass, no impostor does, and every named error is named."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta

from cos_interp.tasks import TASKS, Label, Verdict, grid, reader, registry, suite, vbvr
from cos_interp.tasks.base import find, outcome
from cos_interp.tasks.grid import AGENT, BOX, CLASS_ID, FLOOR, OBJECTS, TRAIL, WALL
from cos_interp.tasks.item import split_of
from cos_interp.tasks.maze import GOALS, Maze, draw, parse_route, route_name, shortest_routes
from cos_interp.tasks.tally import tally

SEEDS = range(60)
names = pytest.mark.parametrize("name", list(TASKS))


def items(name, seeds=SEEDS, **restrict):
    return [TASKS[name].sample(seed, **restrict) for seed in seeds]


def judge(item, cells) -> Verdict:
    return TASKS[item.task].verify(item, grid.render(np.asarray(cells)))


# --- reading -------------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_reading_inverts_drawing_under_moderate_noise(seed):
    rng = np.random.default_rng(seed)
    cells = rng.integers(0, len(grid.CLASSES), (grid.FRAMES, grid.ROWS, grid.COLS))
    noisy = np.clip(grid.render(cells) / 255 + rng.normal(0, 0.03, (grid.FRAMES, 80, 80, 3)), 0, 1)
    assert np.array_equal(reader.read(grid.render(cells)), cells)
    assert np.array_equal(reader.read(noisy), cells)


@given(st.integers(0, len(grid.CLASSES) - 1), st.integers(0, len(grid.CLASSES) - 1), st.floats(0.35, 0.65))
@settings(max_examples=60, deadline=None)
def test_an_average_of_two_sprites_is_unreadable(one, other, share):
    if one == other:
        return
    blend = [grid.render(np.full((grid.FRAMES, grid.ROWS, grid.COLS), c)) / 255 for c in (one, other)]
    read = reader.read((1 - share) * blend[0] + share * blend[1])
    assert not np.isin(read, [one, other]).any()


def test_a_video_of_the_wrong_size_or_length_is_refused():
    with pytest.raises(ValueError, match="9 frames"):
        reader.read(np.zeros((8, 80, 80, 3)))
    with pytest.raises(ValueError, match="40x40"):
        reader.read(np.zeros((9, 81, 80, 3)))


# --- every task ------------------------------------------------------------------------------------------------------


@names
def test_true_videos_are_solved(name):
    for item in items(name):
        verdict = TASKS[name].verify(item, item.video)
        assert verdict.solved and verdict.answer == item.answer and not verdict.error
        assert item.answer in item.answers


@names
def test_impostors_are_not_solved(name):
    task, all_items = TASKS[name], items(name)
    for item, other in zip(all_items, all_items[1:]):
        weight = np.linspace(0, 1, grid.FRAMES)[:, None, None, None]
        crossfade = (1 - weight) * item.video[:1] / 255 + weight * item.video[-1:] / 255
        for impostor in (np.repeat(item.video[:1], grid.FRAMES, 0), item.video[::-1], other.video, crossfade):
            assert not task.verify(item, impostor).solved


@names
def test_items_are_functions_of_their_seed(name):
    task = TASKS[name]
    for seed in (3, 4):
        one, again = task.sample(seed), task.sample(seed)
        assert one.prompt == again.prompt and np.array_equal(one.cells, again.cells) and one.seed == seed
    low = task.difficulties.start + 1
    assert task.sample(5, difficulty=low).difficulty == low
    with pytest.raises(ValueError, match="difficulty"):
        task.sample(0, difficulty=99)


@names
def test_labels_and_groups_cover_the_latent_grid(name):
    task, shape = TASKS[name], (grid.LATENT_FRAMES, grid.ROWS, grid.COLS)
    for item in items(name, range(12)):
        for label in task.labels(item).values():
            assert label.shape == shape and np.issubdtype(label.dtype, np.integer)
        donor = task.counterfactual(item, "image", np.random.default_rng(0)) or item
        groups = task.groups(item, donor)
        assert np.array_equal(np.sum(list(groups.values()), 0), np.ones(shape))


@names
@pytest.mark.parametrize("kind", ["prompt", "image"])
def test_counterfactuals_change_one_thing_and_the_answer(name, kind):
    task, found = TASKS[name], 0
    for item in items(name):
        other = task.counterfactual(item, kind, np.random.default_rng(item.seed))
        if other is None:
            continue
        found += 1
        assert np.array_equal(other.cells[0], item.cells[0]) == (kind == "prompt")
        assert (other.prompt == item.prompt) == (kind == "image")
        assert not set(item.answers) & set(other.answers)
        assert task.verify(other, other.video).solved
        assert not task.verify(item, other.video).solved
        assert outcome(task, item, other, item.video) == "target"
        if kind == "prompt":
            assert outcome(task, item, other, other.video) == "donor"
    assert found >= 20


def test_outcomes_between_answers_of_one_item_are_exact():
    task = TASKS["maze"]
    item = task.sample(0, unique=False, difficulty=6)
    one, two, *more = [task.with_answer(item, a) for a in item.answers]
    assert outcome(task, one, two, two.video) == "donor" and outcome(task, one, two, one.video) == "target"
    for third in more:
        assert outcome(task, one, two, third.video) == "other"
    blend = (one.video / 255 + two.video / 255) / 2
    assert outcome(task, one, two, blend) == "undecided"


def test_another_right_answer_is_solved_too():
    for name in ("maze", "place"):
        for item in items(name, range(12), unique=False):
            for answer in item.answers:
                other = TASKS[name].with_answer(item, answer)
                verdict = TASKS[name].verify(item, other.video)
                assert verdict.solved and verdict.answer == answer
    for task in TASKS.values():
        item = task.sample(0)
        assert task.with_answer(item, item.answer) is item and task.with_answer(item, "nothing") is None


class Other(Maze):
    name = "other"


def test_tasks_of_ones_own_are_known_by_name(monkeypatch):
    monkeypatch.setattr(registry, "TASKS", dict(TASKS))
    task = registry.register(Other())
    assert registry.register(task) is task is registry.get_task("other")
    assert len(suite.load()) == 500  # the suite is of the tasks in the box
    with pytest.raises(ValueError, match="choose another name"):
        registry.register(Other())
    odd = Other()
    odd.name, odd.readable = "odd", (Label("on_path", "reasoning", "", ("no", "yes"), lambda item: item.cells),)
    with pytest.raises(ValueError, match=r"'on_path' \(reasoning: no, yes\) differs from that of maze"):
        registry.register(odd)


# --- named errors ----------------------------------------------------------------------------------------------------


def test_maze_errors():
    seen = set()
    for item in items("maze", range(200), unique=True):
        first, route = item.cells[0], parse_route(item.answer)
        if len(route) < 4:
            continue
        true = item.cells
        other_goal = next(c for c in find(first, list(GOALS.values())) if c != route[-1])
        wrong = shortest_routes(first, route[0], other_goal, route[-1])
        cases = {
            "lost": np.where(true == AGENT, FLOOR, true),
            "jumped": draw(first, (route[0], *route[2:])),
            "not arrived": draw(first, tuple(route[:-1])),
            "late": np.concatenate([true[:2], true[1:-1]]),
            "trail broken": np.where(true == TRAIL, FLOOR, true),
        }
        cases["lost"][0] = true[0]
        cases["trail broken"][0] = true[0]
        if wrong and len(wrong[0]) <= 9:
            cases["wrong goal"] = draw(first, wrong[0])
        free = [c for c in find(first, FLOOR) if c not in route]
        if free:
            cases["more than one agent"], cases["scene changed"] = true.copy(), true.copy()
            cases["more than one agent"][4][free[0]] = AGENT
            cases["scene changed"][1:, free[0][0], free[0][1]] = WALL
        through = [w for w in find(first, WALL) if w in grid.neighbours(*route[0])]
        if through:
            cases["wall crossed"] = draw(first, (route[0], through[0]))
        for error, cells in cases.items():
            cells = cells.copy()
            cells[0] = first
            verdict = judge(item, cells)
            assert (verdict.status, verdict.error) == ("wrong", error), (item.seed, error, verdict)
            seen.add(error)
        changed = true.copy()
        changed[0] = TASKS["maze"].sample(item.seed + 1).cells[0]
        seen.add(judge(item, changed).error)
    assert seen == set(TASKS["maze"].errors)


def test_bounce_errors():
    seen = set()
    balls = [CLASS_ID[f"ball {h}"] for h in grid.HEADINGS]
    for item in items("bounce", range(60)):
        true, ball = item.cells, np.isin(item.cells, balls)
        free = [c for c in find(true[0], FLOOR) if not ball[:, c[0], c[1]].any()]
        cases = {error: true.copy() for error in ("lost", "wrong heading")}
        cases["lost"][4][ball[4]] = FLOOR
        cases["wrong heading"][5][ball[5]] = next(b for b in balls if b != true[5][ball[5]][0])
        cases["frozen"] = np.repeat(true[:1], grid.FRAMES, 0)
        other = TASKS["bounce"].counterfactual(item, "prompt", np.random.default_rng(0))
        if other is not None:
            cases["wrong path"] = other.cells
        if free:
            for error, what in (("more than one ball", balls[0]), ("scene changed", WALL)):
                cases[error] = true.copy()
                cases[error][3][free[0]] = what
        walls = find(true[0], WALL)
        if walls:
            cases["through wall"] = true.copy()
            cases["through wall"][2][ball[2]] = FLOOR
            cases["through wall"][2][walls[0]] = balls[0]
        for error, cells in cases.items():
            verdict = judge(item, cells)
            assert (verdict.status, verdict.error) == ("wrong", error), (item.seed, error, verdict)
            seen.add(error)
    assert seen == set(TASKS["bounce"].errors) - {"first frame changed"}


def test_occlusion_errors():
    seen = set()
    for item in items("occlusion", range(60)):
        true, name = item.cells, item.metadata["hidden"][0]
        at, identity = find(true[-1], CLASS_ID[name])[0], CLASS_ID[name]
        other = next(CLASS_ID[n] for n in OBJECTS if not (true == CLASS_ID[n]).any())
        free = [c for c in find(true[-1], FLOOR) if (true[1:, c[0], c[1]] == FLOOR).all()]
        back = next(f for f in range(8, 0, -1) if true[f - 1][at] != identity)  # the frame of its return
        cases = {error: true.copy() for error in ("lost", "wrong identity", "late")}
        cases["lost"][back:, at[0], at[1]] = FLOOR
        cases["wrong identity"][back:, at[0], at[1]] = other
        cases["late"][back, at[0], at[1]] = FLOOR
        cases["frozen"] = np.repeat(true[:1], grid.FRAMES, 0)
        if free:
            cases["wrong place"], cases["scene changed"] = cases["lost"].copy(), true.copy()
            cases["wrong place"][back:, free[0][0], free[0][1]] = identity
            cases["scene changed"][5:, free[0][0], free[0][1]] = other
        for error, cells in cases.items():
            verdict = judge(item, cells)
            assert (verdict.status, verdict.error) == ("wrong", error), (item.seed, error, verdict)
            seen.add(error)
    assert seen == set(TASKS["occlusion"].errors) - {"first frame changed"}


def test_place_errors():
    from cos_interp.tasks.place import draw as draw_move
    from cos_interp.tasks.place import sideways_first

    seen = set()
    for item in items("place", range(80), unique=True):
        true, first, named = item.cells, item.cells[0], CLASS_ID[item.metadata["object"]]
        start, end = find(first, named)[0], find(true[-1], named)[0]
        path = sideways_first(start, end)
        free = [c for c in find(first, FLOOR) if c not in path]
        others = [CLASS_ID[n] for n in OBJECTS if (first == CLASS_ID[n]).any() and CLASS_ID[n] != named]
        cases = {error: true.copy() for error in ("lost", "duplicated", "scene changed")}
        cases["lost"][3][true[3] == named] = FLOOR
        cases["duplicated"][3][free[0]] = named
        cases["scene changed"][3][free[0]] = WALL
        cases["not moved"] = np.repeat(first[None], grid.FRAMES, 0)
        cases["wrong side"] = draw_move(first, sideways_first(start, free[-1]))
        cases["late"] = np.concatenate([true[:1], true[:-1]]) if len(path) < grid.FRAMES else true
        if len(path) > 3:
            cases["jumped"] = draw_move(first, [path[0], *path[2:]])
        if len(path) >= grid.FRAMES:
            del cases["late"]
        if others:
            at = find(first, others[0])[0]
            cases["wrong object"] = draw_move(first, sideways_first(at, free[0]))
        for error, cells in cases.items():
            verdict = judge(item, cells)
            assert (verdict.status, verdict.error) == ("wrong", error), (item.seed, error, verdict)
            seen.add(error)
    assert seen == set(TASKS["place"].errors) - {"first frame changed"}
    assert BOX in first


# --- maze facts ------------------------------------------------------------------------------------------------------


def test_routes_are_all_shortest_ones_and_drawn_uniformly():
    first = np.full((5, 5), FLOOR)
    routes = shortest_routes(first, (0, 0), (2, 2))
    assert len(routes) == 6 == len(set(routes)) and all(len(r) == 5 for r in routes)
    first[1, 1] = WALL
    assert len(shortest_routes(first, (0, 0), (2, 2))) == 2
    first[0, 0], first[2, 2], first[4, 4] = AGENT, GOALS["red"], GOALS["blue"]
    rng = np.random.default_rng(0)
    drawn = [TASKS["maze"].build(first, "red", rng).answer for _ in range(200)]
    assert 70 < drawn.count(drawn[0]) < 130 and len(set(drawn)) == 2


def test_route_mass_tells_a_superposition_apart():
    item = TASKS["maze"].sample(0, difficulty=4, unique=False)
    videos = [TASKS["maze"].with_answer(item, a).video / 255 for a in item.answers]
    blend = np.mean(videos, 0)
    verdict = TASKS["maze"].verify(item, blend)
    assert verdict.status == "undecided"
    masses = [verdict.readings[f"route mass {a}"] for a in item.answers]
    assert all(0.1 < m < 0.95 for m in masses)
    sharp = TASKS["maze"].verify(item, videos[0]).readings
    assert sharp[f"route mass {item.answers[0]}"] == pytest.approx(1, abs=1e-6)


# --- the suite and the exchange format -------------------------------------------------------------------------------


@names
def test_suite_is_fixed_stratified_and_apart_from_training(name):
    found = suite.task_items(name)
    assert len(found) == 125
    assert all(split_of(i.cells[0]) == "test" for i in found)
    counts = {(i.difficulty, i.unique if u is not None else None) for i, (_, u) in zip(found, TASKS[name].strata * 125)}
    assert counts == set(TASKS[name].strata)
    from cos_interp.organism import data

    assert all(data.item(i).split == "train" for i in range(40))


@names
def test_items_that_confirm_are_of_the_same_strata_and_none_of_the_suite(name):
    chosen, others = suite.task_items(name), suite.confirmation_items(name)
    said = lambda items: {(item.cells[0].tobytes(), item.prompt) for item in items}
    assert len(said(others)) == 125 and not said(chosen) & said(others)
    assert [(i.difficulty, i.unique) for i in others] == [(i.difficulty, i.unique) for i in chosen]
    assert all(split_of(item.cells[0]) == "test" for item in others)


def test_another_seed_confirms_with_other_items():
    """For rules that have seen the first ones."""
    for name, seed in (("place", 1), ("occlusion", 2), ("occlusion", 3)):  # 2 and 3 of few scenes: none of the first two's
        seen = [suite.confirmation_items(name, earlier) for earlier in range(min(seed, 2))]
        kinds = (suite.task_items(name), *seen, suite.confirmation_items(name, seed))
        said = [{(item.cells[0].tobytes(), item.prompt) for item in items} for items in kinds]
        assert len(set.union(*said)) == sum(map(len, said)) == len(kinds) * 125
    assert suite.holds(suite.task_items("bounce")[7]) and not suite.holds(suite.confirmation_items("bounce")[7])


def test_export_and_score_round_trip(tmp_path):
    chosen = [TASKS[n].sample(s, split="test") for n in suite.OF for s in range(2)]
    assert vbvr.export(tmp_path / "data", chosen, "mini") == 8
    example = tmp_path / "data/mini/maze/00000"
    assert {p.name for p in example.iterdir()} == {
        "first_frame.png", "final_frame.png", "ground_truth.mp4", "prompt.txt", "metadata.json",
    }  # fmt: skip
    assert json.loads((example / "metadata.json").read_text())["answer"] == chosen[0].answer
    model = tmp_path / "model"
    for _, place in vbvr.places(chosen, "mini"):
        target = (model / place).with_suffix(".mp4")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((tmp_path / "data" / place / "ground_truth.mp4").read_bytes())
    (model / "mini/place/00001.mp4").unlink()
    (model / "mini/place/00000.mp4").write_bytes(b"not a video")
    verdicts = [v for _, _, v in vbvr.score(model, chosen, "mini")]
    assert [v.status if v else None for v in verdicts] == ["solved"] * 6 + ["undecided", None]
    assert "no readable video" in verdicts[6].error
    summary = tally(list(zip(chosen, verdicts)))
    assert summary["all"]["solved"] == 0.75 and summary["place"]["missing"] == 0.5
    exact = beta.ppf([0.025, 0.975], [6, 7], [3, 2])  # 6 of 8 by Clopper and Pearson's formula; the missing one counts
    assert [summary["all"]["low"], summary["all"]["high"]] == pytest.approx(exact)
    with pytest.raises(FileNotFoundError, match=r"00000\.mp4"):
        vbvr.score(tmp_path / "nowhere", chosen, "mini")


def test_route_names_are_read_back():
    route = [(0, 1), (1, 1), (1, 2)]
    assert parse_route(route_name(route)) == route
