"""Lists of prompts as they are around: every form gives the same problems, and what does not fit is named."""

from __future__ import annotations

import base64
import hashlib
import json

import numpy as np
import pytest
from PIL import Image

from cos_interp.analyses.chain_of_steps import ChainOfStepsConfig
from cos_interp.analyses.driver import prompt_lists
from cos_interp.analyses.kit.problems import problems
from cos_interp.interp import InterpError
from cos_interp.tasks import suite, vbvr

ITEMS = suite.task_items("place")[:2]


def read(path, **settings):
    return problems(ChainOfStepsConfig(prompts=str(path), **settings))


def prompts_of(found):
    return [problem.call["prompt"] for problem in found]


def test_a_text_with_a_prompt_a_line(tmp_path):
    (tmp_path / "all.txt").write_text("a red ball\n\n  two\u2028lines  \n", encoding="utf-8")
    found = read(tmp_path / "all.txt")
    assert prompts_of(found) == ["a red ball", "two\u2028lines"] and found[1].source.endswith("line 3")
    for comment in ("# my prompts", " // mine"):
        (tmp_path / "all.txt").write_text(f"a red ball\n\n{comment}\n")
        with pytest.raises(InterpError, match=r'line 3 looks like a comment: take it out, or .*\{"prompt": "'):
            read(tmp_path / "all.txt")
    (tmp_path / "all.txt").write_text("\n \n")
    with pytest.raises(InterpError, match="holds no prompts"):
        read(tmp_path / "all.txt")


def test_what_a_scorer_is_told_may_have_keys_that_elsewhere_name_files(tmp_path):
    told = {"image": "a red ball", "template": "ball.png", "reference": "x" * 5000, "last_image": "a\0b", "n": [{"image": "."}]}
    path = tmp_path / "all.jsonl"
    path.write_text(json.dumps({"prompt": "a", "expected": told}))
    assert read(path)[0].case.expected == told and set(prompt_lists.content(path, "--prompts")) == {"entry 1"}
    Image.new("RGB", (4, 4)).save(tmp_path / "ball.png")
    held = prompt_lists.content(path, "--prompts")  # one that is there counts
    assert held["file ball.png"] == hashlib.sha256((tmp_path / "ball.png").read_bytes()).hexdigest()


def test_a_prompt_that_stands_there_again_with_its_noise_is_named(tmp_path):
    lines = [{"prompt": "a"}, {"prompt": "a"}, {"prompt": "a", "seed": 1}, {"prompt": "a", "seed": 1, "expected": 2}]
    path = tmp_path / "all.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    assert len({problem.seed for problem in read(path)}) == 3
    path.write_text("\n".join(map(json.dumps, [*lines, {"seed": 1, "prompt": "a"}])))
    with pytest.raises(InterpError, match="line 5 is line 3 again: leave it out, or give it another seed"):
        read(path)


def test_arrays_of_objects_with_the_usual_names(tmp_path):
    Image.fromarray(ITEMS[0].first_frame).save(tmp_path / "a.png")
    listed = [
        {"prompt_en": "one", "dimension": ["motion"], "auxiliary_info": {"x": 1}, "unheard_of": 3},
        {"caption": "two", "image_path": "a.png", "frame_num": 9, "base_seed": 7},
        "three",
    ]
    for value in (listed, {"In-Domain": listed[:1], "Out": listed[1:]}):
        (tmp_path / "info.json").write_text(json.dumps(value))
        one, two, three = read(tmp_path / "info.json")
        assert prompts_of([one, two, three]) == ["one", "two", "three"]
        assert one.case.expected == {"dimension": ["motion"], "auxiliary_info": {"x": 1}, "unheard_of": 3}
        assert two.seed == 7 and two.call["num_frames"] == 9 and two.call["image"].size == (80, 80)
        assert set(one.call) == {"prompt"}
    wrong = [("3", "must be a list"), ("[3]", "entry 1 must be a text or an object"), ("[", "is no JSON")]
    wrong += [
        ('[{"prompt": "a", "prompt": "b"}]', "'prompt' stands there twice"),
        ('[{"prompt": "a", "x": NaN}]', "no finite number"),
    ]
    wrong += [('["\\ud800"]', "half of a surrogate pair"), ('[{"prompt": "a", "x": 1e999}]', "no finite number")]
    for text, message in wrong:
        (tmp_path / "info.json").write_text(text)
        with pytest.raises(InterpError, match=message):
            read(tmp_path / "info.json")


def test_two_names_of_one_thing_that_differ_are_not_lost(tmp_path):
    """A list tells the scorer what does not count; a line that asks for both is refused, as one with a key twice is."""
    line = {"prompt": "short", "caption": "long and detailed", "text": "short", "seed": 1, "base_seed": 2, "n_prompt": None}
    (tmp_path / "all.json").write_text(json.dumps([line]))
    (found,) = prompt_lists.entries(tmp_path / "all.json", "--prompts")
    said = {"caption": "long and detailed", "base_seed": 2}
    assert found.line == {"prompt": "short", "seed": 1, "expected": said}
    (tmp_path / "all.jsonl").write_text(json.dumps(line))
    with pytest.raises(InterpError, match="'prompt' and 'caption' are names of one thing and differ"):
        read(tmp_path / "all.jsonl")
    (tmp_path / "same.jsonl").write_text(json.dumps({"prompt": "p", "text": "p", "caption": "p"}))
    assert prompts_of(read(tmp_path / "same.jsonl")) == ["p"]


@pytest.mark.parametrize("prefix", ["", "data:image/png;base64,"])
def test_pictures_in_base64(prefix, tmp_path):
    Image.fromarray(ITEMS[0].first_frame).save(tmp_path / "a.png")
    picture = prefix + base64.b64encode((tmp_path / "a.png").read_bytes()).decode()
    line = {"prompt": "p", "first_image": picture, "first_frame_path": "gone/first_frame.png"}
    (tmp_path / "bench.json").write_text(json.dumps([line]))
    (found,) = read(tmp_path / "bench.json")
    assert np.array_equal(np.asarray(found.call["image"]), ITEMS[0].first_frame)
    before = prompt_lists.content(tmp_path / "bench.json", "--prompts")
    Image.fromarray(ITEMS[1].first_frame).save(tmp_path / "a.png")
    line["first_image"] = base64.b64encode((tmp_path / "a.png").read_bytes()).decode()
    (tmp_path / "bench.json").write_text(json.dumps([line]))
    assert prompt_lists.content(tmp_path / "bench.json", "--prompts") != before
    (tmp_path / "bench.json").write_text(json.dumps([line | {"first_image": "nonsense"}]))
    with pytest.raises(InterpError, match="entry 1: first_image is no picture in base64"):
        read(tmp_path / "bench.json")


def test_a_line_of_the_benchmarks_list_stands_in_lines_of_json_too(tmp_path):
    """What it says of the end, and where its prompt is from, is the scorer's: no model is given the picture of the end."""
    beside = {"id": 3, "prompt_path": "In/sort/00000/prompt.txt", "final_frame_path": "In/sort/00000/final_frame.png"}
    line = {"prompt": "p", **beside, "ground_truth_video_path": "In/sort/00000/ground_truth.mp4"}
    (tmp_path / "bench.jsonl").write_text(json.dumps(line))
    (found,) = prompt_lists.entries(tmp_path / "bench.jsonl", "--prompts")
    assert found.line == {"prompt": "p", "reference": "In/sort/00000/ground_truth.mp4", "expected": beside}


def test_requests_a_line(tmp_path):
    Image.fromarray(ITEMS[0].first_frame).save(tmp_path / "a.png")
    line = {"id": "q1", "prompt": "p", "n_prompt": "blur", "image_path": "a.png", "task": "t", "expected": {"least": 0.1}}
    (tmp_path / "requests.jsonl").write_text(json.dumps(line))
    (found,) = read(tmp_path / "requests.jsonl")
    assert found.call["negative_prompt"] == "blur" and set(found.call) == {"prompt", "negative_prompt", "image"}
    assert found.case.expected == {"id": "q1", "task": "t", "least": 0.1}


def test_the_benchmarks_data_folder_and_generators_questions(tmp_path):
    vbvr.export(tmp_path / "data", ITEMS, "mini")
    found = read(tmp_path / "data", scorer="reference")
    assert prompts_of(found) == [item.prompt for item in ITEMS]
    listed = [
        json.loads(line) for line in (tmp_path / "data/metadata.jsonl").read_text().splitlines()
    ]  # for datasets' videofolder
    assert [line["prompt"] for line in listed] == prompts_of(found)
    assert all((tmp_path / "data" / line["file_name"]).is_file() for line in listed)
    assert [p.case.key for p in found] == ["mini/place/00000", "mini/place/00001"] and found[0].task == "place"
    assert found[0].case.expected["answer"] == ITEMS[0].answer and found[0].case.truth.shape[0] == 9
    at = tmp_path / "questions/maze_task/maze_00000000"
    at.mkdir(parents=True)
    Image.fromarray(ITEMS[0].first_frame).save(at / "first_frame.png")
    (at / "prompt.txt").write_text("go\n")
    (question,) = read(tmp_path / "questions")
    assert question.call["prompt"] == "go" and question.call["image"].size == (80, 80) and question.case.truth is None
    named = set(prompt_lists.content(tmp_path / "data", "--prompts"))
    assert {"entry 1", "picture mini/place/00000/first_frame.png", "file mini/place/00001/ground_truth.mp4"} <= named
    (tmp_path / "empty").mkdir()
    with pytest.raises(InterpError, match="holds no prompts"):
        read(tmp_path / "empty")


def test_a_path_that_lies_elsewhere_counts_by_its_name(tmp_path):
    """Of a folder of folders, whose files are else named from its top."""
    at = tmp_path / "questions/maze/0001"
    at.mkdir(parents=True)
    (at / "prompt.txt").write_text("go left")
    Image.new("RGB", (8, 8)).save(tmp_path / "elsewhere.png")
    Image.new("RGB", (8, 8)).save(at / "here.png")
    told = {"first": {"image": str(tmp_path / "elsewhere.png")}, "second": {"image": "here.png"}}
    (at / "metadata.json").write_text(json.dumps(told))
    found = prompt_lists.content(tmp_path / "questions", "--prompts")
    assert set(found) == {"entry 1", f"picture {tmp_path}/elsewhere.png", "picture maze/0001/here.png"}


def test_a_file_of_json_a_sample(tmp_path):
    """Below folders of tasks, without any prompt.txt; what lies beside a file is named from its place."""
    (tmp_path / "bench/maze").mkdir(parents=True)
    Image.new("RGB", (8, 8), "red").save(tmp_path / "bench/maze/a.png")
    told = {"prompt_en": "go left", "image_path": "a.png", "level": 3, "negative_prompt": None}
    (tmp_path / "bench/maze/0001.json").write_text(json.dumps(told))
    (tmp_path / "bench/maze/0002.json").write_text('[{"text": "go right"}]')
    one, two = read(tmp_path / "bench")
    assert (one.call["prompt"], one.case.expected, one.case.key) == ("go left", {"level": 3}, "maze/0001")
    assert one.call["image"].getpixel((0, 0)) == (255, 0, 0) and "negative_prompt" not in one.call
    assert two.call["prompt"] == "go right" and two.case.key == "maze/0002/00000"
    (tmp_path / "bench/maze/0003.json").write_text('{"level": 3}')
    with pytest.raises(InterpError, match=r"0003.json: 'prompt' is missing"):
        read(tmp_path / "bench")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InterpError, match=r"holds no prompts: give folders with prompt.txt, or files of JSON"):
        read(tmp_path / "empty")
