"""Shards as real processes: two at once on one folder and on two, killed and repeated, on other kernels, as submitit's jobs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pandas as pd
import pytest
from faults import at_boundary, content, in_a_child

from cos_interp.analyses import EXPERIMENTS
from cos_interp.analyses.driver import cluster, experiment, lock, processor
from cos_interp.analyses.driver.errors import RunError
from cos_interp.analyses.driver.finishing import finish
from cos_interp.analyses.driver.merging import merge
from cos_interp.analyses.driver.registry import entries, load
from cos_interp.analyses.driver.shard import Shard
from cos_interp.analyses.driver.share import holders, share
from cos_interp.analyses.driver.store import RunStore
from cos_interp.interp import HookedVideoPipeline
from cos_interp.interp.errors import InterpError
from cos_interp.interp.files import read_sealed_json

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = {
    "patching": {"layers": (0,), "steps": (0, 1), "batch": 2},
    "self-correction": {"twins": 1},
    "probes": {"layers": (0,), "folds": 2, "views": False},  # pieces that need each other
}


class Asked:
    """A small run with inputs of its own, and the bytes that one process leaves."""

    def __init__(self, name: str, home: Path):
        prompts, pairs = home / "prompts.jsonl", home / "pairs.jsonl"
        prompts.write_text("".join(json.dumps({"prompt": f"a ball, {n}"}) + "\n" for n in range(4)))
        sides = [{"clean": {"prompt": f"a red ball, {n}"}, "corrupt": {"prompt": "a blue ball"}} for n in range(3)]
        pairs.write_text("".join(json.dumps(side) + "\n" for side in sides))
        inputs = {"pair_file": str(pairs)} if name == "patching" else {"prompts": str(prompts)}
        self.model = HookedVideoPipeline.from_pretrained("tiny:wan2.1")
        self.experiment = load(name)
        self.config = entries()[name].config(**{"num_inference_steps": 2, **inputs, **SETTINGS[name]})
        experiment.run_and_report(self.experiment, self.config, home / "whole", model=self.model, workers=1)
        self.whole = content(home / "whole")

    def share(self, folder: Path, number: int, count: int = 2, workers: int = 1) -> None:
        share(self.experiment, self.config, folder, shard=Shard(number, count), model=self.model, workers=workers)

    def together(self, *given: tuple[Path, int]) -> list[int]:
        """The wait statuses of shards that run at one time, each in a process."""
        statuses = [0] * len(given)

        def one(place: int) -> None:
            statuses[place] = in_a_child(lambda: self.share(*given[place]))

        threads = [threading.Thread(target=one, args=(place,)) for place in range(len(given))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return statuses


@pytest.fixture(scope="module", params=SETTINGS)
def asked(request, tmp_path_factory):
    return Asked(request.param, tmp_path_factory.mktemp(request.param))


def test_two_processes_on_one_folder_end_with_the_bytes_of_one(asked, tmp_path):
    assert asked.together((tmp_path / "run", 1), (tmp_path / "run", 2)) == [0, 0]
    finish(tmp_path / "run", EXPERIMENTS)
    assert content(tmp_path / "run") == asked.whole


def test_two_processes_on_two_folders_end_with_the_bytes_of_one(asked, tmp_path):
    assert asked.together((tmp_path / "1", 1), (tmp_path / "2", 2)) == [0, 0]
    merge([tmp_path / "1", tmp_path / "2"], tmp_path / "run")
    finish(tmp_path / "run", EXPERIMENTS)
    assert content(tmp_path / "run") == asked.whole


def test_one_that_is_killed_is_repeated_while_the_other_goes_on(asked, tmp_path):
    def killed() -> None:
        with at_boundary(9):  # in its second or third file
            asked.share(tmp_path / "run", 1)

    other = threading.Thread(target=in_a_child, args=(lambda: asked.share(tmp_path / "run", 2),))
    other.start()
    assert os.WIFSIGNALED(in_a_child(killed))
    asked.share(tmp_path / "run", 1)
    other.join()
    finish(tmp_path / "run", EXPERIMENTS)
    assert content(tmp_path / "run") == asked.whole


def test_the_same_shard_at_one_time_in_two_folders_is_harmless(asked, tmp_path):
    given = [(tmp_path / "1", 1), (tmp_path / "again", 1), (tmp_path / "2", 2)]
    assert asked.together(*given) == [0, 0, 0]
    merge([folder for folder, _ in given], tmp_path / "run")
    finish(tmp_path / "run", EXPERIMENTS)
    assert content(tmp_path / "run") == asked.whole


@pytest.mark.slow
def test_a_shard_that_is_killed_at_any_write_is_repeated(asked, tmp_path):
    with at_boundary(0) as boundaries:
        asked.share(tmp_path / "counted", 1)
    for number in range(1, boundaries.count + 1):
        folder = tmp_path / f"run{number}"

        def killed(folder: Path = folder, number: int = number) -> None:
            with at_boundary(number):
                asked.share(folder, 1)

        assert os.WIFSIGNALED(in_a_child(killed))
        asked.share(folder, 2)
        asked.share(folder, 1)
        finish(folder, EXPERIMENTS)
        assert content(folder) == asked.whole, f"boundary {number}"


# --- as the command line does it --------------------------------------------------------------------------------------

COMMAND = ["analyze", "self-correction", "--model", "tiny:wan2.1", "--num-steps", "2", "--workers", "1"]


def cos(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])])
    told = {**os.environ, "PYTHONPATH": path, **environment}
    line = [sys.executable, "-W", "ignore::DeprecationWarning", "-m", "cos_interp.cli", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, env=told)


@pytest.mark.slow
def test_submitits_local_jobs_end_with_the_bytes_of_one_process(prompts, tmp_path):
    pytest.importorskip("submitit")
    whole = cos(*COMMAND, "--prompts", prompts, "--out", tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    run = tmp_path / "run"
    done = cos(*COMMAND, "--prompts", prompts, "--out", run, "--submit", "local", "--shards", "2", "--job", "timeout_min=9")
    assert done.returncode == 0, done.stderr
    assert content(run) == content(tmp_path / "whole")
    logs = "".join(path.read_text() for path in (tmp_path / "run.jobs").glob("*_log.out"))
    assert "completed successfully" in logs
    assert "Report: " in done.stdout and json.loads(cos("runs", "watch", run, "--json").stdout)["whole"] is True
    failed = cos(*COMMAND, "--prompts", prompts, "--out", run, "--submit", "local", "--shards", "2", "--seed", "1")
    assert failed.returncode == 1 and "2 of 2 shards failed: shard 1/2 (" in failed.stderr and "--seed: 0, now 1" in failed.stderr
    assert content(run) == content(tmp_path / "whole")


@pytest.mark.slow
def test_a_job_that_is_warned_of_its_end_is_queued_again_and_goes_on(tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"), prepend=os.pathsep)
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("".join(f"a ball, {n}\n" for n in range(60)))
    config = entries()["self-correction"].config(model="tiny:wan2.1", prompts=str(prompts), num_inference_steps=2)
    run, only = tmp_path / "run", Shard(1, 1)
    job = cluster.submit(cluster.jobs("self-correction", config, run, 1, workers=1), "local", {})[0]
    while not lock.owner(run, only) and not job.done():
        time.sleep(0.05)
    os.kill(lock.owner(run, only)["pid"], signal.SIGUSR2)  # as SLURM does before the time limit
    assert job.result() == "shard 1/1: 60 units; 60 of 60 are there"
    assert "Requeued job" in job.stdout() and job.stdout().count("Starting with") == 2
    finish(run, EXPERIMENTS)
    assert RunStore(run).verify() == []


@pytest.mark.slow
def test_rays_tasks_end_with_the_bytes_of_one_process(prompts, tmp_path):
    pytest.importorskip("ray")
    for folder, how in (("whole", ()), ("run", ("--submit", "ray", "--shards", "2"))):
        done = cos(*COMMAND, "--prompts", prompts, "--out", tmp_path / folder, *how)
        assert done.returncode == 0, done.stderr
    assert content(tmp_path / "run") == content(tmp_path / "whole")
    other = cos(*COMMAND, "--prompts", prompts, "--out", tmp_path / "run", "--submit", "ray", "--shards", "2", "--seed", "1")
    assert other.returncode == 1 and "2 of 2 shards failed: shard 1/2 (" in other.stderr and "--seed: 0, now 1" in other.stderr


def test_a_job_that_is_preempted_is_queued_again_as_it_is(tmp_path):
    submitit = pytest.importorskip("submitit")
    job = cluster.jobs("self-correction", entries()["self-correction"].config(), tmp_path, 3)[1]
    again = job.checkpoint()
    assert isinstance(again, submitit.helpers.DelayedSubmission) and again.function == job and job.shard == Shard(2, 3)
    with pytest.raises(InterpError, match=r"--submit local: .*partitoin"):
        cluster.submit([job], "local", {"slurm_partitoin": "gpu"})


def test_a_slurm_array_has_a_task_a_shard_with_what_was_asked_for(tmp_path, monkeypatch):
    """SLURM itself is not here: a stand-in for its command takes the script that submitit would give it."""
    pytest.importorskip("submitit")
    for name, does in (("sbatch", f'cp "$1" {tmp_path}/asked.sh; echo "Submitted batch job 7"'), ("srun", "true")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / name).chmod(0o755)
    made = cluster.jobs("self-correction", entries()["self-correction"].config(), tmp_path / "run", 3)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    submitted = cluster.submit(made, "slurm", {"slurm_partition": "gpu", "timeout_min": 90, "gpus_per_node": 1})
    assert [job.job_id for job in submitted] == ["7_0", "7_1", "7_2"]
    asked = (tmp_path / "asked.sh").read_text()
    assert all(f"#SBATCH --{one}" in asked for one in ("array=0-2", "partition=gpu", "time=90", "gpus-per-node=1", "signal=USR2"))
    assert not (tmp_path / "run").exists() and cluster.log_folder(tmp_path / "run").is_dir()


def test_a_job_that_comes_back_waits_for_its_own_old_heartbeat(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "SILENT", 2.0)
    (tmp_path / ".owner-1-of-2.json").write_text(json.dumps({"token": "t", "host": "elsewhere", "pid": 1}))
    job = cluster.jobs("self-correction", entries()["self-correction"].config(), tmp_path, 2)[0]
    assert lock.lives(tmp_path, job.shard)
    job._wait_for_the_one_before()
    assert not lock.lives(tmp_path, job.shard)


def test_without_submitit_or_ray_the_message_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    monkeypatch.setitem(sys.modules, "ray", None)
    made = cluster.jobs("self-correction", entries()["self-correction"].config(), tmp_path, 2)
    with pytest.raises(InterpError, match=r"pip install 'cos-interp\[cluster\]'"):
        cluster.submit(made, "local", {})
    with pytest.raises(InterpError, match=r"pip install 'cos-interp\[ray\]'"):
        cluster.in_ray(made, {})


def test_each_job_here_sees_one_gpu_in_turn(tmp_path, monkeypatch):
    monkeypatch.setenv(cluster.VISIBLE, "2,5")
    of = lambda device: entries()["self-correction"].config(device=device)
    made = cluster.each_its_gpu(cluster.jobs("self-correction", of("auto"), tmp_path, 3))
    assert [job.gpu for job in made] == ["2", "5", "2"]
    assert [job.gpu for job in cluster.each_its_gpu(cluster.jobs("self-correction", of("cuda:1"), tmp_path, 2))] == ["2,5", "2,5"]


@pytest.mark.slow
def test_shards_on_other_kernels_agree_and_the_run_says_so(tmp_path):
    """Of the organism: weights that are drawn, those of tiny models and twins, are others on other kernels, which is refused."""
    command = ["analyze", "self-correction", "--items", "1", "--tasks", "maze,place", "--num-steps", "2", "--workers", "1"]
    for number, kernels in ((1, {}), (2, {"ATEN_CPU_CAPABILITY": "default", "DNNL_MAX_CPU_ISA": "SSE41"})):
        for folder, used in (("one", {}), ("mixed", kernels)):
            done = cos(*command, "--out", tmp_path / folder, "--shard", f"{number}/2", **used)
            assert done.returncode == 0, done.stderr
    finish(tmp_path / "one", EXPERIMENTS)
    report = finish(tmp_path / "mixed", EXPERIMENTS)
    told = RunStore(tmp_path / "mixed").facts()["processors"]
    assert len(told) == 2 and "several kinds of processor" in report.data["notes"][-1]
    one, mixed = (pd.read_parquet(tmp_path / folder / "results.parquet") for folder in ("one", "mixed"))
    assert len(one.select_dtypes("float").columns) >= 2
    pd.testing.assert_frame_equal(one, mixed, rtol=processor.AGREEMENT, atol=0)


@pytest.mark.parametrize("asked", ["probes"], indirect=True)
def test_who_waits_says_for_whom_and_goes_on(asked, tmp_path):
    """The other one is alive and silent: its part is not taken from it; then it is gone, and is."""
    said: list[str] = []
    waves = experiment.ordered(asked.experiment, asked.config, asked.experiment.pieces(asked.config))
    last, silent = list(holders(waves, 2).items())[-1]  # whose unit waits for all others
    own = Shard(3 - silent.number, 2)
    with lock.Writer(tmp_path, silent).holding():
        units = tmp_path / "shards"

        def tell(done: int, total: int, what: str) -> None:
            said.append(what)
            if "waits for shard" in what and len([one for one in said if "waits" in one]) == 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            share(asked.experiment, asked.config, tmp_path, shard=own, model=asked.model, workers=1, progress=tell)
        assert said[-1] == f"shard {own}: waits for shard {silent}" and not (units / f"{last}.safetensors").exists()
        assert read_sealed_json((tmp_path / "run.json").read_bytes())["status"] == "running"
    asked.share(tmp_path, own.number)
    with pytest.raises(RunError, match=f"shard {silent}"):
        finish(tmp_path, EXPERIMENTS)
