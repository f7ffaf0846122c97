"""Pairs of the user's own: a whole run on another family, and every malformed line named."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import tiny_call

from cos_interp.analyses.driver import experiment
from cos_interp.analyses.driver.registry import load
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.kit import pair_file
from cos_interp.analyses.kit.groups import of_boxes
from cos_interp.analyses.kit.problems import arguments
from cos_interp.analyses.kit.seeds import seed_for
from cos_interp.analyses.patching import ENTRY, PatchingConfig
from cos_interp.interp import HookedVideoPipeline, InterpError, pixel_to_latent
from cos_interp.interp.families import tiny

RED, BLUE = {"prompt": "a red ball"}, {"prompt": "a blue ball"}
SIZE = {k: v for k, v in tiny_call("wan21-t2v").items() if k in ("height", "width", "num_frames", "max_sequence_length")}


def written(folder, *pairs) -> str:
    path = folder / "pairs.jsonl"
    path.write_text("\n".join(pair if isinstance(pair, str) else json.dumps(pair) for pair in pairs))
    return str(path)


def test_own_pairs_on_another_pipeline_from_its_folder(tmp_path):
    tiny.build("wan2.1").save_pretrained(tmp_path / "model")
    one = {"clean": RED | SIZE, "corrupt": BLUE | SIZE}
    two = {"clean": {"prompt": "two goals", "seed": 3} | SIZE, "corrupt": BLUE | SIZE}
    same = {name: {"prompt": "a box", "negative_prompt": name} | SIZE for name in ("clean", "corrupt")}
    config = PatchingConfig(
        model=str(tmp_path / "model"), pair_file=written(tmp_path, one, two, same), num_inference_steps=3, steps=(0, 2),
        layers=(0, 1),
    )  # fmt: skip
    result, report = experiment.run_and_report(load("patching"), config, tmp_path / "run", workers=1)
    rows = result.rows
    assert set(rows.pair) == {"own-000", "own-001"}  # without guidance the negative prompt of the third changes nothing
    assert any("1 pair(s) left out, own-002" in line and "same video" in line for line in report.lines)
    assert set(rows.donor) == {"clean", "self", "random", "same_prompt"} and set(rows.group) == {"all"}
    assert rows.outcome.isna().all() and rows.effect.notna().all() and (rows[rows.donor == "self"].effect == 0).all()
    assert dict(zip(rows.pair, rows.span, strict=True)) == {"own-000": "from", "own-001": "single"}  # the second: two noises
    first = rows[(rows.pair == "own-000") & (rows.step == 0) & (rows.donor == "clean")]
    assert (first.effect > 0).all()  # towards the clean run; how far is checked below by plain hooks
    assert result.facts["block_calls"] == result.facts["block_calls_minimum"]
    assert any("no verifier" in line for line in report.lines) and RunStore(tmp_path / "run").verify() == []
    assert [f["verdict"] for f in report.data["findings"]] == ["not testable"]


def test_the_number_of_pairs_is_the_files_or_what_was_asked(tmp_path):
    from cos_interp.analyses.patching.pieces import pairs_of

    file = written(tmp_path, *[{"clean": RED, "corrupt": BLUE | {"seed": n}} for n in range(5)])
    assert len(pairs_of(PatchingConfig(pair_file=file))) == 5 and len(pairs_of(PatchingConfig(pair_file=file, pairs=2))) == 2
    assert len(pairs_of(PatchingConfig())) == 12


def test_images_are_found_beside_the_file_and_noises_are_shared(tmp_path):
    Image.fromarray(np.full((8, 8, 3), 7, np.uint8)).save(tmp_path / "a.png")
    (clean, corrupt), later = pair_file.read(
        tmp_path / written(tmp_path, {"clean": RED | {"image": "a.png"}, "corrupt": BLUE}, "", {"clean": RED, "corrupt": BLUE}),
        PatchingConfig(seed=2),
    )
    assert clean.call["image"].getpixel((3, 3)) == (7, 7, 7) and clean.seed == corrupt.seed == seed_for("noise", 2, "pairs", 0)
    assert later[0].seed == later[1].seed == seed_for("noise", 2, "pairs", 1)


def test_the_example_of_the_documentation_is_read(tmp_path):
    page = (Path(__file__).resolve().parents[2] / "docs/patching.md").read_text()
    (tmp_path / "pairs.jsonl").write_text(page.split("```json\n")[1].split("```")[0])
    Image.new("RGB", (8, 8)).save(tmp_path / "ball.png")
    (left, right), (seven, eight) = pair_file.read(tmp_path / "pairs.jsonl", PatchingConfig())
    assert "left" in left.call["prompt"] and left.seed == right.seed and (seven.seed, eight.seed) == (7, 8)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2 is not a line of JSON"), ("[]", "line 2 must be an object, it is a list"), ({"clean": RED}, "it has clean"),
        ({"clean": RED, "corrupt": BLUE, "note": 1}, "it has clean, corrupt, note"),
        ({"clean": RED, "corrupt": "blue"}, "line 2, corrupt: give an object with a 'prompt'"),
        ({"clean": {}, "corrupt": BLUE}, "line 2, clean: 'prompt' is missing"),
        ({"clean": RED, "corrupt": RED}, "line 2: both sides are equal"),
        ({"clean": RED | {"image": "none.png"}, "corrupt": BLUE}, 'line 2, clean: image "none.png" cannot be read'),
        ({"clean": RED | {"image": "pairs.jsonl"}, "corrupt": BLUE}, "cannot be read"),
        ({"clean": RED | {"image": 3}, "corrupt": BLUE}, "image 3 is a number, not the path of a picture"),
        ({"clean": RED | {"seed": "1"}, "corrupt": BLUE}, 'seed "1" must be a whole number'),
        ({"clean": RED | {"seed": True}, "corrupt": BLUE}, "seed true must be"),
        ({"clean": RED | {"height": 32}, "corrupt": BLUE}, "height differs between the sides"),
        ({"clean": RED, "corrupt": BLUE, "boxes": {"ball": [5, 0, 2, 9]}}, "line 2, boxes: 'ball' is"),
        ({"clean": RED, "corrupt": BLUE, "boxes": None}, "line 2, boxes: give an object"),
        ({"clean": RED | {"num_inference_steps": 3}, "corrupt": BLUE}, "--num-steps is 8"),
    ],
)  # fmt: skip
def test_every_malformed_line_is_named(line, message, tmp_path):
    with pytest.raises(InterpError, match=message):
        pair_file.read(tmp_path / written(tmp_path, {"clean": RED, "corrupt": BLUE}, line), PatchingConfig())


def test_a_pair_that_stands_there_again_is_named(tmp_path):
    seeded = {"clean": RED | {"seed": 3}, "corrupt": BLUE | {"seed": 3}}
    other, turned = {"clean": RED, "corrupt": BLUE}, {"clean": seeded["corrupt"], "corrupt": seeded["clean"]}
    pairs = [other, seeded, other, {**seeded, "clean": RED | {"seed": 4}}, turned]
    assert len(pair_file.read(tmp_path / written(tmp_path, *pairs), PatchingConfig())) == 5
    with pytest.raises(InterpError, match="line 7 is line 2 again: leave it out, or give it another seed"):
        pair_file.read(tmp_path / written(tmp_path, *pairs, "", seeded), PatchingConfig())


def test_a_file_without_pairs_and_no_file(tmp_path):
    with pytest.raises(InterpError, match="has no lines"):
        pair_file.read(tmp_path / written(tmp_path, "", "  "), PatchingConfig())
    with pytest.raises(InterpError, match="No such file"):
        pair_file.read(tmp_path / "nowhere.jsonl", PatchingConfig())
    os.mkfifo(tmp_path / "pipe.jsonl")
    for name, message in (("pipe.jsonl", "/pipe.jsonl is a pipe, not a file"), (".", " is a folder, not a file")):
        with pytest.raises(InterpError, match=f"^--pair-file [^ ]*{message}$"):
            pair_file.read(tmp_path / name, PatchingConfig())
    (tmp_path / "bytes.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(InterpError, match="line 1: byte 0xff is not UTF-8"):
        pair_file.read(tmp_path / "bytes.jsonl", PatchingConfig())


@pytest.mark.parametrize("setting", [{"task": "place"}, {"pair_kinds": ("seed",)}, {"unique": False}])
def test_settings_of_the_tasks_pairs_beside_own_ones_are_refused(tmp_path, setting):
    file, (name,) = written(tmp_path, {"clean": RED, "corrupt": BLUE}), setting
    with pytest.raises(ValueError, match=f"own pairs stand in the place of a task's: leave out {name}, or pair_file"):
        PatchingConfig(pair_file=file, **setting)
    PatchingConfig(**setting)
    PatchingConfig(pair_file=file, pairs=1)


def test_groups_and_frames_that_own_pairs_do_not_have_are_named(tmp_path):
    model = HookedVideoPipeline.from_pipeline(tiny.build("wan2.1"))
    file = written(tmp_path, {"clean": RED | SIZE, "corrupt": BLUE | SIZE})
    for change, message in (({"tokens": ("goals",)}, "a pair of a file has all"), ({"frames": (40,)}, "latent frames 0 to 2")):
        config = PatchingConfig(pair_file=file, num_inference_steps=2, **change)
        with pytest.raises(InterpError, match=message):
            experiment.run(load("patching"), config, tmp_path / message[:5], model=model, workers=1)


def test_the_effect_of_own_pairs_is_recomputed_by_plain_hooks(tmp_path):
    """One cell of a two-step run, finished with an ordinary edit of the whole run: the same latent to the bit."""
    import torch

    from cos_interp.analyses.driver.statistics import projection
    from cos_interp.analyses.patching.measure import pieces, work

    model = HookedVideoPipeline.from_pipeline(tiny.build("wan2.1"))
    config = PatchingConfig(
        pair_file=written(tmp_path, {"clean": RED | SIZE, "corrupt": BLUE | SIZE}), num_inference_steps=3, steps=(1,),
        layers=(1,), batch=1,
    )  # fmt: skip
    (piece, _), store = pieces(config)[0], RunStore(tmp_path, ENTRY.facts)
    (tmp_path / "shards").mkdir()
    list(work(model, config, store, piece))
    rows, _ = store.unit("own-000-step-001")
    name, run = (
        "blocks.1.hook_resid_post",
        {"num_inference_steps": 3, "guidance_scale": 1.0, "seed": seed_for("noise", 0, "pairs", 0), **SIZE},
    )
    donor, cache = model.run_with_cache(names=name, **run, **RED)
    edit = lambda act, hook: cache[name, hook.step, "cond"]
    patched = model.run_with_hooks(fwd_hooks=[(f"{name} @ step=1:3", edit)], **run, **BLUE).latents
    place = next(i for i, row in enumerate(rows) if row["donor"] == "clean")
    assert torch.equal(store.tensors("own-000-step-001")["latents"][place : place + 1], patched)
    corrupt = model.run(**run, **BLUE).latents
    assert rows[place]["effect"] == projection(patched, corrupt, donor.latents)


def test_boxes_by_pixel_frame_become_tokens_by_the_one_rule():
    where = {frame: (8 * (frame // 2), 0, 8 * (frame // 2) + 8, 8) for frame in range(9)}
    masks = of_boxes({"ball": where}, (5, 5, 5), (9, 40, 40), "line 1")
    latent = pixel_to_latent(9, 5)
    wanted = {(int(latent[frame]), 0, frame // 2) for frame in range(9)}
    assert {tuple(place) for place in masks["ball"].nonzero().tolist()} == wanted
    assert int(masks["rest"].sum()) == 125 - len(wanted)
    with pytest.raises(InterpError, match=r"box 'ball' ends at 8, 8 in frame 9; the video has 40x40 pixels, 9 frames"):
        of_boxes({"ball": {9: (0, 0, 8, 8)}}, (5, 5, 5), (9, 40, 40), "line 1")


JUDGE = """
def judge(video, case):
    shade = float(video[-1].mean())
    return {"status": "solved" if abs(shade - case.expected["shade"]) < case.expected["within"] else "wrong", "error": "shade"}
"""


def test_boxes_and_a_scorer_on_own_pairs(tmp_path):
    """The expected answers are the two videos' own; the last block at all tokens of all steps gives the donor's."""
    model = HookedVideoPipeline.from_pretrained("tiny:wan2.1")
    sides = {"clean": RED | SIZE, "corrupt": BLUE | SIZE}
    config = PatchingConfig(pair_file=written(tmp_path, sides), num_inference_steps=3)
    found = pair_file.read(Path(config.pair_file), config)[0]
    shades = [float(model.run(**arguments(model, config, side)).decode()[0][-1].mean()) for side in found]
    within = abs(shades[0] - shades[1]) / 3
    assert within > 0
    answers = [{"expected": {"shade": shade, "within": within}} for shade in shades]
    told = dict(zip(("clean", "corrupt"), answers, strict=True))
    boxes = {"corner": {"0": [0, 0, 16, 16], "8": [0, 0, 16, 16]}}
    line = {name: sides[name] | told[name] for name in sides} | {"boxes": boxes}
    (tmp_path / "judge.py").write_text(JUDGE)
    asked = PatchingConfig(
        pair_file=written(tmp_path, line), scorer=f"{tmp_path}/judge.py:judge", num_inference_steps=3, steps=(0,), layers=(2,),
        sites=("hook_resid_post",), tokens=("all", "corner"),
    )  # fmt: skip
    result, report = experiment.run_and_report(load("patching"), asked, tmp_path / "run", model=model, workers=1)
    rows = result.rows
    assert set(rows.group) == {"all", "corner"} and rows.donor_shown.isna().all()
    assert set(rows[(rows.group == "all") & (rows.donor == "clean")].outcome) == {"donor"}
    assert set(rows[rows.donor == "self"].outcome) == {"target"}
    assert not any("no verifier" in text for text in report.lines)
    wrong = {"clean": sides["clean"] | {"expected": {"shade": -9, "within": 1}}, "corrupt": line["corrupt"]}
    config = asked.model_copy(update={"pair_file": written(tmp_path, wrong), "tokens": None})
    _, report = experiment.run_and_report(load("patching"), config, tmp_path / "none", model=model, workers=1)
    assert any("does not accept the model's own video of the clean side: shade" in text for text in report.lines)


BALLS = ("red", "blue", "green")


def judged_pairs(folder: Path, model: HookedVideoPipeline, steps: int) -> dict[str, str]:
    """Options of a file of three pairs, each with a box, whose expected answers are the shades of the model's own videos."""
    lines = []
    for color in BALLS:
        whats = zip(pair_file.SIDES, ("ball", "box"), strict=True)
        sides = {side: {"prompt": f"a {color} {what}", "seed": 0} | SIZE for side, what in whats}
        config = PatchingConfig(pair_file=written(folder, sides), num_inference_steps=steps)
        runs = [model.run(**arguments(model, config, side)) for side in pair_file.read(Path(config.pair_file), config)[0]]
        shades = dict(zip(pair_file.SIDES, (float(run.decode()[0][-1].mean()) for run in runs), strict=True))
        within = abs(shades["clean"] - shades["corrupt"]) / 3
        told = {side: sides[side] | {"expected": {"shade": shades[side], "within": within}} for side in sides}
        lines.append(told | {"boxes": {"corner": [0, 0, 16, 16]}})
    (folder / "judge.py").write_text(JUDGE)
    return {"pair_file": written(folder, *lines), "scorer": f"{folder}/judge.py:judge"}


def test_swaps_of_own_pairs_have_boxes_and_answers(tmp_path):
    """The last block at every step gives the other side's video: its answer, by the scorer."""
    model = HookedVideoPipeline.from_pretrained("tiny:wan2.1")
    given = judged_pairs(tmp_path, model, 2)
    config = load("swap").config(**given, num_inference_steps=2, layers=(1, 2), steps=(0,), variants=("block",), items=2)
    result, report = experiment.run_and_report(load("swap"), config, tmp_path / "run", model=model, workers=1)
    rows = result.rows
    assert set(rows.problem) == {"pairs-own-000", "pairs-own-001"} and set(rows.group) == {"all", "object", "random"}
    assert set(rows.donor) == {"pair", "random item", "same prompt", "self"}
    last = rows[(rows.span == "all") & (rows.layer == 2) & (rows.group == "all")]
    assert (last[last.donor == "pair"].flipped == 1).all() and (last[last.donor == "pair"].effect == 1).all()
    assert (rows[rows.donor == "self"].outcome == "target").all()
    assert "swap.flip-all" in {f["key"] for f in report.data["findings"]}


GUIDED = {"negative_prompt": "ugly"}  # decides on HunyuanVideo whether a run is guided
RED_OR_BLUE = {side: {"prompt": f"a {color} ball"} for side, color in (("clean", "red"), ("corrupt", "blue"))}
CATS = {side: {"prompt": f"a {color} cat"} for side, color in (("clean", "red"), ("corrupt", "blue"))}


def told(sides, *guided):
    return {side: call | (GUIDED if side in guided else {}) for side, call in sides.items()}


def of_hunyuan(name, folder, *lines, **asked):
    given = {"pair_file" if "clean" in lines[0] else "prompts": written(folder, *lines), "set": ("true_cfg_scale=4.0",)}
    config = load(name).config(**given, model="tiny:hunyuan", num_inference_steps=2, layers=(1,), steps=(0,), **asked)
    return experiment.run_and_report(load(name), config, folder / "run", workers=1)[0].rows


NAMES = {"swap": ("problem", "random item", {"items": 3}), "patching": ("pair", "random", {"tokens": ("all",)})}


@pytest.mark.parametrize("name", NAMES)
def test_a_random_item_is_guided_as_the_pair_is(name, tmp_path):
    """The next pair has no uncond branch to give to a guided one: the one after it gives, and to it nobody does."""
    pair, random, few = NAMES[name]
    dogs = {side: {"prompt": call["prompt"].replace("cat", "dog")} for side, call in CATS.items()}
    rows = of_hunyuan(name, tmp_path, told(RED_OR_BLUE, *pair_file.SIDES), CATS, told(dogs, *pair_file.SIDES), **few)
    assert rows[pair].nunique() == 3
    assert sorted(rows[rows.donor == random][pair].str[-3:].unique()) == ["000", "002"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("guided", pair_file.SIDES)
def test_a_pair_of_which_one_side_is_guided_is_left_out_in_words(name, guided, tmp_path):
    pair, _, few = NAMES[name]
    assert of_hunyuan(name, tmp_path, told(RED_OR_BLUE, guided), CATS, **few)[pair].nunique() == 1
    assert "guided and the other is not" in (tmp_path / "run" / "report.html").read_text()


def test_swaps_between_own_prompts_are_between_runs_that_are_guided_alike(tmp_path):
    """Of four prompts the last is not guided: it gives to nobody, and the first gives nothing to it."""
    calls = [{"prompt": f"a {color} ball", **GUIDED} for color in ("red", "green", "blue")] + [{"prompt": "a cat"}]
    rows = of_hunyuan("swap", tmp_path, *calls, items=4)
    everything = {"pair", "random item", "same prompt", "self"}
    donors = {name: set(of.donor) for name, of in rows.groupby("problem")}
    assert donors == {"prompts-own-000": everything, "prompts-own-001": everything}
    assert "guided and the other is not" in (tmp_path / "run" / "report.html").read_text()


def test_circuits_of_own_pairs_have_answers(tmp_path):
    model = HookedVideoPipeline.from_pretrained("tiny:wan2.1")
    config = load("circuit").config(**judged_pairs(tmp_path, model, 2), pairs=1, check_pairs=2, num_inference_steps=2, most=2,
                                    keep=0.05, refine=0.001)  # fmt: skip
    result, report = experiment.run_and_report(load("circuit"), config, tmp_path / "run", model=model, workers=1)
    tested = result.rows[result.rows.table == "check"]
    assert tested.pair.nunique() == 2 and (tested[tested.way == "everything"].outcome == "donor").all()
    found = {f["key"]: f for f in report.data["findings"]}
    ways = tested.assign(given=tested.outcome == "donor").groupby("way").given.mean()
    assert found["circuit.answers"]["number"]["value"] == pytest.approx(ways["circuit"] - ways["random set"])


def test_steering_on_own_pairs_has_answers(tmp_path):
    model = HookedVideoPipeline.from_pretrained("tiny:wan2.1")
    config = load("steering").config(**judged_pairs(tmp_path, model, 2), pairs=2, check_pairs=1, num_inference_steps=2, layer=2,
                                     tokens=("corner", "rest"), ranks=(1,))  # fmt: skip
    result, report = experiment.run_and_report(load("steering"), config, tmp_path / "run", model=model, workers=1)
    tested = result.rows[result.rows.table == "check"]
    assert set(tested[tested.way == "donor"].outcome) == {"donor"} and tested.outcome.notna().all()
    assert "steering.answers" in {f["key"] for f in report.data["findings"]}


def test_pairs_that_a_scorer_does_not_accept_are_taken_where_that_is_asked(tmp_path):
    model = HookedVideoPipeline.from_pretrained("tiny:wan2.1")
    given = judged_pairs(tmp_path, model, 2)
    (tmp_path / "judge.py").write_text(JUDGE.replace('["shade"])', '["shade"] - 999)'))
    small = {"pairs": 1, "check_pairs": 0, "num_inference_steps": 2, "most": 1}
    told = lambda **more: experiment.run_and_report(
        load("circuit"), load("circuit").config(**given, **small, **more), tmp_path / str(len(more)), model=model, workers=1
    )
    assert any("does not accept" in line for line in told()[1].lines)
    assert (told(solved=False)[0].rows.table == "part").any()


def test_own_pairs_beside_prompts_are_refused(prompts):
    with pytest.raises(ValueError, match="own pairs stand in the place of prompts: leave out prompts, or pair_file"):
        load("swap").config(prompts=prompts, pair_file="pairs.jsonl")
    with pytest.raises(ValueError, match="own pairs stand in the place of tasks"):
        load("swap").config(tasks=("maze",), pair_file="pairs.jsonl")


def test_a_scorer_needs_pairs_to_judge():
    with pytest.raises(ValueError, match="a scorer judges own pair_file; the tasks' items have their verifier: add pair_file"):
        PatchingConfig(scorer="motion")
