"""What stands beside videos that another program made where there is no true video, and by what they are grouped."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from cos_interp import analyses
from cos_interp.analyses.chain_of_steps.files_report import table
from cos_interp.interp import InterpError
from cos_interp.tasks.video import encode_mp4

JUDGE = """
def judge(video, case):
    end = video[-1].mean() / 255
    half = video[len(video) // 2 - 1].mean() / 255
    return {"status": "solved" if end > 0.6 and 0.3 < half < 0.6 else "wrong", "readings": {"end": end, "frames": len(video)}}
"""
DARK, LIGHT = np.full((48, 64, 3), 40, np.uint8), np.full((48, 64, 3), 220, np.uint8)
SLOW = np.stack([DARK + np.uint8(20 * k) for k in range(10)])  # 40 to 220, of ten frames
PLACES = ("open/sort/00000", "open/sort/00001", "hidden/count/00000")


def png(pixels):
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    return data.getvalue()


def put(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "judge.py").write_text(JUDGE)
    for place in PLACES:
        put(tmp_path / "theirs" / f"{place}.mp4", encode_mp4(SLOW, 8, enlarge=1))
    return tmp_path


def scored(folder, name="run", **settings):
    settings = {"scorer": f"{folder}/judge.py:judge", **settings}
    run = analyses.run("chain-of-steps", out=folder / name, workers=1, from_steps=str(folder / "theirs"), **settings)
    return run, (folder / name / "report.html").read_text()


def beside_of(run):
    rows = run.rows[run.rows.kind == "beside"]
    return {(problem, row.video): row for problem, part in rows.groupby("problem") for row in part.itertuples()}


def test_without_anything_the_videos_own_first_frame_is_frozen(folder):
    run, page = scored(folder)
    held = beside_of(run)
    assert set(held) == {(place, "frozen") for place in PLACES} and {row.made_of for row in held.values()} == {
        "the video's own first frame"
    }
    assert all(row.status == "wrong" for row in held.values())
    assert (
        "Not there: jump and crossfade of 3 of 3 samples, which ground_truth.mp4 or final_frame.png below --truth would" in page
    )
    assert "Not there: true video of 3 of 3 samples, which ground_truth.mp4 below --truth would make." in page
    (finding,) = run.findings
    assert finding.verdict == "not testable" and "no sample has a picture of its end" in page


@pytest.mark.parametrize("name", ["final_frame.png", "last_frame.png"])
def test_given_pictures_make_a_frozen_frame_a_jump_and_a_fade(name, folder):
    """In the size and length of the video: the pictures are four times as large. The third sample has no picture of its end."""
    larger = lambda pixels: png(pixels.repeat(4, 0).repeat(4, 1))
    for place in PLACES:
        put(folder / "truth" / place / "first_frame.png", larger(DARK))
    for place in PLACES[:2]:
        put(folder / "truth" / place / name, larger(LIGHT))
    run, page = scored(folder, truth=str(folder / "truth"))
    held = beside_of(run)
    ends = {video: held[PLACES[0], video]._asdict() for video in ("frozen", "jump", "crossfade")}
    read = run.rows[run.rows.kind == "beside"].set_index(["problem", "video"])
    assert {video: round(read["reading end"][PLACES[0], video] * 255) for video in ends} == {
        "frozen": 40,
        "jump": 220,
        "crossfade": 220,
    }
    assert (read["reading frames"] == 10).all() and {row.made_of for row in held.values()} == {"the given picture"}
    assert {video: held[PLACES[0], video].status for video in ends} == {"frozen": "wrong", "jump": "wrong", "crossfade": "solved"}
    assert {video for place, video in held if place == PLACES[2]} == {"frozen"}
    assert "Not there: jump and crossfade of 1 of 3 samples" in page
    (finding,) = run.findings
    assert finding.number.n == 2 and "in the 2 of 3 that have all three" in finding.statement
    assert finding.number.value == 0.0  # a fade satisfies this judge as often as the model does


def test_a_true_video_that_cannot_be_read_is_told_and_stands_for_nothing(folder):
    put(folder / "truth" / PLACES[0] / "ground_truth.mp4", b"nothing")
    put(folder / "truth" / PLACES[1] / "ground_truth.mp4", encode_mp4(SLOW, 8, enlarge=1))
    run, page = scored(folder, truth=str(folder / "truth"))
    assert "Of 1 of 3 samples: ground_truth.mp4 cannot be read." in page
    assert {place for place, video in beside_of(run) if video == "true video"} == {PLACES[1]}


def listed(place, **more):
    return {"id": place.replace("/", "-"), "prompt": f"do {place}", "first_image": base64.b64encode(png(DARK)).decode(),
            "ground_truth_video_path": f"{place}/ground_truth.mp4", **more}  # fmt: skip


def as_list(home, facts):
    put(home / "Bench.json", json.dumps([listed(place, **more) for place, more in facts.items()]).encode())


def as_lists_of_tasks(home, facts):
    """One list a task, beside its samples' folders, that names them by their numbers; some paths mean nothing."""
    for task in {place.rpartition("/")[0] for place in facts}:
        lines = [{"id": place.rpartition("/")[2], "prompt": f"do {place}", "first_image": base64.b64encode(png(DARK)).decode(),
                  "root": "/", "up": "../..", **more} for place, more in facts.items() if place.startswith(task)]  # fmt: skip
        put(home / task / "all.json", json.dumps({"samples": lines}).encode())


def as_lines(home, facts):
    lines = [json.dumps(listed(place, metadata=more)) for place, more in facts.items()]
    put(home / "bench.jsonl", ("\n".join(lines) + "\n").encode())


def as_files(home, facts):
    for place, more in facts.items():
        put(home / f"{place}.json", json.dumps(listed(place, **more)).encode())


def as_metadata(home, facts):
    for place, more in facts.items():
        put(home / place / "first_frame.png", png(DARK))
        put(home / place / "prompt.txt", f"do {place}\n".encode())
        put(home / place / "question_metadata.json", json.dumps(more).encode())


@pytest.mark.parametrize("layout", [as_list, as_lists_of_tasks, as_lines, as_files, as_metadata])
def test_categories_and_dimensions_are_read_from_the_data_folder(layout, folder):
    order, number = {"category": "Order"}, {"category": "Number", "dimension": "end"}
    facts = dict(zip(PLACES, (order | {"dimension": "steps"}, order | {"dimension": ["steps", "end"]}, number), strict=True))
    layout(folder / "truth", facts)
    run, page = scored(folder, truth=str(folder / "truth"))
    steps = run.rows[run.rows.kind == "steps"].set_index("problem")
    assert steps.part.to_dict() == {place: said["category"] for place, said in facts.items()}
    assert steps.dimension[list(PLACES)].to_list() == ["steps", "steps, end", "end"]
    assert steps.split[list(PLACES)].to_list() == ["open", "open", "hidden"]
    assert {row.made_of for row in beside_of(run).values()} == {"the given picture"}
    assert f"do {PLACES[0]}" in page
    rows = run.rows.assign(solved=(run.rows.status == "solved").astype(float))
    made = table(rows[rows.kind == "steps"], rows[rows.kind == "beside"], ["solved"]).set_index("items")
    assert made.n.to_dict() == {
        "all": 3, "category Number": 1, "category Order": 2, "dimension end": 1, "dimension steps": 1, "dimension steps, end": 1,
        "split hidden": 1, "split open": 2,
    }  # fmt: skip


def test_folders_that_are_called_by_a_category_say_it(folder):
    for place in ("Spatiality/maze/00000", "Abstraction/raven/00000"):
        put(folder / "theirs" / f"{place}.mp4", encode_mp4(SLOW, 8, enlarge=1))
    run, _ = scored(folder)
    part = run.rows[run.rows.kind == "steps"].set_index("problem").part
    assert part.to_dict() == dict.fromkeys(PLACES, "") | {
        "Spatiality/maze/00000": "Spatiality",
        "Abstraction/raven/00000": "Abstraction",
    }


def test_a_damaged_list_is_named(folder):
    put(folder / "truth/bench.json", b'[{"prompt": ')
    with pytest.raises(InterpError, match=r"bench\.json is no list of JSON"):
        scored(folder, truth=str(folder / "truth"))
    put(folder / "truth/bench.json", json.dumps({"results": {"score": 1}}).encode())
    with pytest.raises(InterpError, match="has the true video of no sample"):
        scored(folder, truth=str(folder / "truth"))


YES_OR_NO = """
def judge(video, case):
    return {"readings": {"light": float(video[-1].mean() > 150), "grade": 1.0}}
"""


def test_a_reading_that_says_yes_or_no_is_a_share_with_its_exact_interval(folder):
    """2 of 3: Clopper and Pearson's interval is 0.094 to 0.992 (by hand, from the beta distribution). One that is 1 for all is a
    grade as far as anybody can tell."""
    (folder / "judge.py").write_text(YES_OR_NO)
    put(folder / "theirs" / f"{PLACES[0]}.mp4", encode_mp4(SLOW[:1].repeat(10, 0), 8, enlarge=1))
    run, _ = scored(folder)
    rows = run.rows.assign(solved=np.nan)
    made = table(rows[rows.kind == "steps"], rows[rows.kind == "beside"], ["reading light", "reading grade"])
    told = made[made["items"] == "all"].set_index("measure")["final video"]
    assert told["light"] == "0.67 [0.09, 0.99] (n = 3)" and told["grade"] == "1.00 in all 3"
