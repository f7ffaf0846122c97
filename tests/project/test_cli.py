"""The command line as a user meets it: help, errors in one line, exit codes, JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from cos_interp import cli
from cos_interp.analyses.driver.command import floats, integers

ROOT = Path(__file__).resolve().parents[2]


def cos(*args: str, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, str(ROOT / "cli.py"), *args], cwd=cwd, env=env, capture_output=True, text=True)


def commands(group, path=()):
    for name in group.list_commands(None):
        command = group.get_command(None, name)
        if hasattr(command, "list_commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = dict(commands(typer.main.get_command(cli.app)))


def test_the_commands_are_found():
    assert {("analyze", "all"), ("analyze", "ensemble"), ("probe", "train"), ("runs", "rm"), ("export", "steps")} <= set(COMMANDS)


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_has_an_example_in_its_help(path):
    done = CliRunner().invoke(cli.app, [*path, "--help"])
    assert done.exit_code == 0
    assert f"cos {' '.join(path)}" in done.stdout


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_no_command_lets_the_last_of_two_count_unsaid(path):
    plain = [one for one in COMMANDS[path].params if one.param_type_name == "option" and not (one.is_eager or one.multiple)]
    for option in plain[:1]:
        values = [] if option.is_flag else ["2"]
        done = CliRunner().invoke(cli.app, [*path, *(2 * [option.opts[0], *values])])
        assert done.exit_code == 2 and f"{option.opts[0]}" in done.output and "is given 2 times" in done.output


def test_an_option_that_is_given_twice_says_how_several_values_are_given():
    done = CliRunner().invoke(cli.app, ["analyze", "ensemble", "--tensors", "x_t", "--tensors=final"])
    assert "--tensors is given 2 times, of which the last would count: give it once (several values in one" in done.output
    done = CliRunner().invoke(cli.app, ["analyze", "ensemble", "--confirm", "--items", "3", "--no-confirm"])
    assert "--confirm or --no-confirm is given 2 times" in done.output
    done = CliRunner().invoke(cli.app, ["report", "account", "nowhere", "--trained", "a=1", "--trained", "b=2"])
    assert "times" not in done.output  # which may stand there more than once


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["analyze", "patching", "--model", "nowhere"], "no model 'nowhere'"),
        (["analyze", "patching", "--model", "{tmp}"], "model_index.json"),
        (["analyze", "patching", "--task", "chess"], "the tasks are maze"),
        (["analyze", "patching", "--pairs", "0"], "--pairs 0"),
        (["analyze", "patching", "--branch", "uncond"], "guidance scale above 1"),
        (["analyze", "patching", "--sites", "hook_resid_pots"], "hook_resid_post"),
        (["analyze", "patching", "--steps", "a"], "0,4,8"),
        (["analyze", "patching", "--tokens", "nose"], "maze has"),
        (["analyze", "patching", "--out", "/proc/nowhere/run"], "cannot write"),
        (["tasks", "show", "chess"], "the tasks are maze"),
        (["tasks", "show", "maze", "--difficulty", "99"], "it runs from 2 to 8"),
        (["tasks", "score", "{tmp}", "--task", "bounce"], "no video found"),
        (["tasks", "export", "{tmp}/x", "--suite", "other"], "there is cos-500"),
        (["runs", "verify", "{tmp}"], "holds no run"),
    ],
)
def test_errors_are_one_line_with_the_remedy(args, words, tmp_path):
    done = cos(*[a.replace("{tmp}", str(tmp_path)) for a in args])
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert lines[-1].startswith("error: ") and words in done.stderr
    assert "Traceback" not in done.stderr


def test_debug_gives_the_traceback():
    done = cos("tasks", "show", "chess", "--debug")
    assert done.returncode == 1 and "Traceback" in done.stderr


def test_unknown_option_and_command():
    assert cos("analyze", "nothing").returncode == 2
    assert cos("tasks", "list", "--nothing").returncode == 2


def test_tasks_list_and_show(tmp_path):
    rows = json.loads(cos("tasks", "list", "--json").stdout)
    assert [r["task"] for r in rows] == ["maze", "occlusion", "bounce", "place"]
    assert all(r["errors"] for r in rows)
    done = cos("tasks", "show", "maze", "--seed", "3", "--out", str(tmp_path / "clip.mp4"))
    assert done.returncode == 0 and "prompt: go to the" in done.stdout and done.stdout.count(" | ") == 5 * 8
    from cos_interp.tasks import TASKS
    from cos_interp.tasks.video import read_mp4

    item = TASKS["maze"].sample(3)
    assert TASKS["maze"].verify(item, read_mp4(tmp_path / "clip.mp4")).solved


def test_export_and_score_from_the_command_line(tmp_path):
    done = cos("tasks", "export", str(tmp_path / "data"), "--task", "bounce")
    assert done.returncode == 0 and "125 items" in done.stdout
    made = tmp_path / "model/cos-500/bounce"
    made.mkdir(parents=True)
    for i in range(3):
        (made / f"{i:05d}.mp4").write_bytes((tmp_path / f"data/cos-500/bounce/{i:05d}/ground_truth.mp4").read_bytes())
    found = json.loads(cos("tasks", "score", str(tmp_path / "model"), "--task", "bounce", "--json").stdout)
    assert [i["status"] for i in found["items"][:4]] == ["solved"] * 3 + ["missing"]
    assert found["summary"]["bounce"]["solved"] == 3 / 125


def test_lists_of_numbers_are_read():
    assert integers("0,4,8") == (0, 4, 8) and integers("0:8:3") == (0, 3, 6) and floats("0.5,1") == (0.5, 1.0)
    with pytest.raises(ValueError, match="0,4,8"):
        integers("a")
