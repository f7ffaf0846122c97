"""Ready-made scorers by name, and the user's own: functions of a video and a case, see :mod:`cos_interp.tasks.scorer`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from cos_interp.interp.errors import InterpError
from cos_interp.tasks import outside

if TYPE_CHECKING:  # the command line knows the names before numpy is loaded
    from cos_interp.tasks.scorer import Scorer

READY = {
    "reference": "the video is the reference video: by structure (SSIM) and by the colour of each region",
    "template": "an object, given as a picture, is seen at a place: expected {template, at, ...}",
    "motion": "something moves: expected {} or {least}",
    "vbvr": "the benchmark's own scorer of the task, where the package vbvr_bench is installed",
}  # modules of this package, each with its judge
OF_FILES = ("vbvr",)  # those that look at the file themselves, at any frame rate


def is_known(text: str) -> bool:
    """Whether a text names a scorer; nothing is executed to know it."""
    return text in READY or outside.is_outside(text, outside.SCORER_GROUP)


def scorer_of(text: str) -> Scorer:
    """The scorer of a name, of ``my.py:judge`` or of an entry point. InterpError names the ready-made ones."""
    from cos_interp.tasks.scorer import callable_scorer

    if outside.is_outside(text, outside.SCORER_GROUP):
        found = outside.load(text, outside.SCORER_GROUP)
        return callable_scorer(_made(found, text) if isinstance(found, type) else found, text)
    if text not in READY:
        raise InterpError(f"unknown scorer {text!r}; there are {', '.join(READY)}, or give my.py:judge")
    judge: Scorer = import_module(f"{__name__}.{text}").judge
    return judge


def _made(kind: type, text: str) -> object:
    """An object of a class. InterpError where it needs arguments, or making it fails."""
    try:
        return kind()
    except (Exception, SystemExit) as error:
        told = f"{type(error).__name__}: {error}"
        raise InterpError(f"{text} cannot be made without arguments ({told}): name a function or an object") from error
