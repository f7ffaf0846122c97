"""Plain nnsight inside one transformer call of a running pipeline: reads, writes and ``.source``, by the model's own names.

nnsight's tracer takes the body of the ``with`` block as it always does. What is ours is where the body runs: the pipeline
runs as in any run, and the one call that was asked for is interleaved with the body.
"""

from __future__ import annotations

from collections.abc import Callable
from types import CodeType
from typing import Any

from nnsight import Envoy
from nnsight.intervention.batching import Batcher
from nnsight.intervention.interleaver import Mediator
from nnsight.tracing.tracer import Tracer, push_result, skip_context, skippable

from cos_interp.interp.errors import InterpError
from cos_interp.interp.run.clock import Call
from cos_interp.interp.run.director import Around, Director
from cos_interp.interp.run.engine import ExpertEngine
from cos_interp.interp.trajectory import Run

_OUTSIDE = "the transformer is there only inside the `with model.trace_call(...)` block"


class TracedCall:
    """Inside the block the nnsight envoy of the transformer, by its own names; after it ``run`` is the finished run."""

    def __init__(self) -> None:
        self.__dict__.update(_envoy=None, _run=None)

    @property
    def run(self) -> Run:
        """The finished run. InterpError inside the block, where it is still going on."""
        if self._run is None:
            raise InterpError("call.run is the finished run: read it after the `with model.trace_call(...)` block")
        return self._run

    def __getattr__(self, name: str) -> Any:
        if self._envoy is None:
            raise AttributeError(f"call.{name}: {_OUTSIDE}")
        return getattr(self._envoy, name)

    def __repr__(self) -> str:
        state = "in its block" if self._envoy is not None else f"of {self._run}" if self._run is not None else "before its run"
        return f"TracedCall({state})"

    def __setattr__(self, name: str, value: Any) -> None:
        if self._envoy is None:
            raise AttributeError(f"call.{name}: {_OUTSIDE}")
        setattr(self._envoy, name, value)


class BranchRows(Batcher):
    """Shows a block the rows of one branch only, in a forward of ``rows`` rows that has both branches."""

    def __init__(self, envoy: Envoy, rows: int):
        super().__init__(envoy)
        self.total = rows

    @property
    def batching(self) -> bool:
        """Whether rows are cut at all."""
        return True


class CallTracer(Tracer):
    """Captures a ``with`` block and runs it inside one call of a run of the pipeline.

    ``play`` runs the pipeline with another director around its own; ``step``, ``branch`` (None for the whole forward of a
    step) and ``expert`` (None for the one that runs) say which call.
    """

    def __init__(self, play: Callable[[Callable[[Director], Director]], Run], step: int, branch: str | None, expert: str | None):
        super().__init__()
        self.play, self.step, self.branch, self.expert = play, step, branch, expert
        self.call, self.reached = TracedCall(), False

    def __enter__(self) -> Any:
        """As nnsight's own, which finds the block two frames above; the block's name is bound to the call."""
        self.capture()
        if self.node is not None and skippable(self.node):
            skip_context(self)
        return self.call

    def execute(self, code: CodeType) -> None:
        """Run the pipeline, with the block's code inside its call."""
        self.reached = False
        run = self.play(lambda inner: _Interleaving(inner, self, code))
        if not self.reached:
            raise self._missing(run)
        self.call.__dict__["_run"] = run

    def means(self, calls: tuple[Call, ...]) -> bool:
        """Whether this forward is the one asked for."""
        branches = [call.branch for call in calls]
        first = calls[0]
        return first.step == self.step and self.branch in (None, *branches) and self.expert in (None, first.expert)

    def interleaved(
        self, code: CodeType, calls: tuple[Call, ...], engine: ExpertEngine, forward: Callable[[], Any], rows: int
    ) -> Any:
        """One forward with the block's code beside it; what it returns."""
        if self.reached:
            raise InterpError(f"step {self.step} has a forward for each branch: say branch='cond' or branch='uncond'")
        self.reached = True
        assert self.info is not None  # capture() has made it
        frame, envoy, out = self.info.frame, engine.env, []
        worker = Mediator(code, frame.f_globals, dict(frame.f_locals), node=self.node)
        batcher = None
        if self.branch is not None and len(calls) > 1:
            worker.batch_group = rows_of(self.branch, calls, engine, rows)
            batcher = BranchRows(envoy, rows)
        envoy.interleaver.mediators.append(worker)
        self.call.__dict__["_envoy"] = envoy
        try:
            envoy.interleave(lambda: out.append(forward()), batcher=batcher)
        finally:
            self.call.__dict__["_envoy"] = None
            envoy.interleaver.cancel()
        push_result(frame, worker.lcls.writes())
        return out[0]

    def _missing(self, run: Run) -> InterpError:
        asked = f"step {self.step}, branch {self.branch!r}" + (f", expert {self.expert!r}" if self.expert else "")
        there = sorted({call.expert for call in run.calls if call.step == self.step})
        experts = f"; at step {self.step} {', '.join(there)} ran" if there else ""
        return InterpError(
            f"the run had no call at {asked}: it had steps 0 to {run.steps - 1}, branches {', '.join(run.branches)}{experts}"
        )


class _Interleaving(Around):
    """Runs a block's code beside the one call that its tracer means."""

    def __init__(self, inner: Director, tracer: CallTracer, code: CodeType):
        super().__init__(inner)
        self.tracer, self.block = tracer, code

    def call(self, calls: tuple[Call, ...], engine: ExpertEngine, kwargs: dict[str, Any]) -> Any:
        forward = lambda: self.inner.call(calls, engine, kwargs)
        if not self.tracer.means(calls):
            return forward()
        return self.tracer.interleaved(self.block, calls, engine, forward, len(kwargs["hidden_states"]))


def rows_of(branch: str, calls: tuple[Call, ...], engine: ExpertEngine, rows: int) -> list[int]:
    """First row and number of rows of a branch in a forward that has several. InterpError where rows cannot be told apart."""
    if any(point.site.fold for point in engine.points.values()):
        raise InterpError(
            f"{engine.adapter.family} runs both branches in one forward and folds frames or positions into its batch, so that "
            "nnsight cannot tell a branch's rows: give branch=None for the whole forward"
        )
    each = rows // len(calls)
    return [[call.branch for call in calls].index(branch) * each, each]
