"""Shards as jobs: of SLURM or of this machine through submitit, or of Ray."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from cos_interp.analyses.driver import lock
from cos_interp.analyses.driver.errors import RunError
from cos_interp.analyses.driver.registry import load
from cos_interp.analyses.driver.settings import AnalysisConfig
from cos_interp.analyses.driver.shard import Shard
from cos_interp.analyses.driver.share import POLL, share
from cos_interp.interp.errors import InterpError

MINUTES = 24 * 60  # of a job, where nothing is said; a job that reaches its limit is put into the queue again
VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Job:
    """One shard of a run, as a job does it. Done again it continues. ``gpu``: the one that it sees; None for what there is."""

    name: str
    config: AnalysisConfig
    folder: Path
    shard: Shard
    workers: int | None = None
    accept_versions: bool = False
    gpu: str | None = None

    def __call__(self) -> str:
        """What was done, in words."""
        if self.gpu is not None:
            os.environ[VISIBLE] = self.gpu  # before torch looks for GPUs
        self._wait_for_the_one_before()
        ways: dict[str, Any] = {"workers": self.workers, "accept_versions": self.accept_versions}
        done = share(load(self.name), self.config, self.folder, shard=self.shard, **ways)
        return f"shard {self.shard}: {done.own} units; {done.there} of {done.total} are there"

    def _wait_for_the_one_before(self) -> None:
        """A job that was killed and put into the queue again may begin elsewhere before its old heartbeat counts as silent."""
        until = time.monotonic() + lock.SILENT + lock.BEAT
        while lock.lives(self.folder, self.shard) and time.monotonic() < until:
            time.sleep(POLL)

    def checkpoint(self, *args: Any, **kwargs: Any) -> Any:
        """What is put into the queue when the job is preempted or reaches its time limit: the same again."""
        return _submitit().helpers.DelayedSubmission(self)


def jobs(name: str, config: AnalysisConfig, folder: Path, count: int, **ways: Any) -> list[Job]:
    """The shards of a run as jobs."""
    return [Job(name, config, folder.absolute(), Shard(number, count), **ways) for number in range(1, count + 1)]


def each_its_gpu(made: Sequence[Job]) -> list[Job]:
    """The jobs of this machine: each sees one of its GPUs, in turn; all of them where the settings name one by its number."""
    there = gpus()
    if any(":" in job.config.device for job in made):
        there = [",".join(there)] if there else []
    return [replace(job, gpu=there[place % len(there)] if there else None) for place, job in enumerate(made)]


def log_folder(folder: Path) -> Path:
    """Where the jobs of a run write what they say: beside its folder, which holds nothing else."""
    return folder.absolute().with_name(f"{folder.absolute().name}.jobs")


def submit(made: Sequence[Job], cluster: str, parameters: Mapping[str, Any]) -> list[Any]:
    """Submitit's jobs, one a shard. ``parameters``: of its executor, like ``slurm_partition`` or ``timeout_min``.

    InterpError where submitit is not installed, does not know a parameter, or finds no such cluster.
    """
    submitit = _submitit()
    try:
        executor = submitit.AutoExecutor(folder=log_folder(made[0].folder), cluster=cluster)
        executor.update_parameters(**{"timeout_min": MINUTES, "name": f"cos-{made[0].name}", **parameters})
    except (NameError, AssertionError, ValueError, RuntimeError) as error:
        raise InterpError(f"--submit {cluster}: {str(error).splitlines()[0]}") from error
    if cluster == "local":
        return [executor.submit(job) for job in each_its_gpu(made)]
    with executor.batch():  # one array
        return [executor.submit(job) for job in made]


def wait(submitted: Sequence[Any], shards: Sequence[Shard], tell: Callable[[], None]) -> None:
    """Wait for jobs, and ``tell`` meanwhile. RunError names those that failed, with their logs; the others are done."""
    try:
        while not all(job.done() for job in submitted):
            tell()
            time.sleep(POLL)
    except KeyboardInterrupt:
        for job in submitted:
            job.cancel(check=False)
        raise
    failed = [
        f"shard {shard} ({_reason(error)}; see {job.paths.stderr})"
        for job, shard in zip(submitted, shards, strict=True)
        if (error := job.exception()) is not None
    ]
    if failed:
        raise RunError(f"{len(failed)} of {len(shards)} shards failed: {'; '.join(failed)}: the same command goes on")


def in_ray(made: Sequence[Job], parameters: Mapping[str, Any]) -> list[str]:
    """The shards as tasks of Ray, of the cluster that ``RAY_ADDRESS`` names or of this machine; waits for all, and says what they
    did. ``parameters``: of a task, like ``num_gpus``; Ray lets each see its own GPUs. A task whose node is lost is done again.

    InterpError where Ray is not installed; RunError for shards that failed.
    """
    try:
        import ray
    except ImportError as error:
        raise InterpError("--submit ray needs Ray: pip install 'cos-interp[ray]'") from error
    ray.init(ignore_reinit_error=True)
    task = ray.remote(Job.__call__).options(**{"num_cpus": 1, "max_retries": 3, **parameters})
    done, failed = [], []
    for job, asked in [(job, task.remote(job)) for job in made]:
        try:
            done.append(ray.get(asked))
        except ray.exceptions.RayError as error:
            failed.append(f"shard {job.shard} ({str(error).strip().splitlines()[-1]})")
    if failed:
        raise RunError(f"{len(failed)} of {len(made)} shards failed: {'; '.join(failed)}: the same command goes on")
    return done


def _reason(error: BaseException) -> str:
    """The last line of the trace, which submitit puts between two rules before it names its logs."""
    parts = [part.strip() for part in re.split(r"-{10,}", str(error)) if part.strip()]
    trace = parts[1] if len(parts) > 2 else "".join(parts[:1]) or type(error).__name__
    return trace.splitlines()[-1]


def gpus() -> list[str]:
    """The GPUs that this process sees, as ``CUDA_VISIBLE_DEVICES`` names them."""
    import torch

    named = [one for one in os.environ.get(VISIBLE, "").split(",") if one]
    return named or [str(number) for number in range(torch.cuda.device_count())]


def _submitit() -> ModuleType:
    try:
        import submitit
    except ImportError as error:
        raise InterpError("--submit needs submitit: pip install 'cos-interp[cluster]'") from error
    return submitit
