"""What can be wrong with a run folder."""

from __future__ import annotations


class RunError(RuntimeError):
    """A run folder that cannot be used as asked."""


class Taken(RunError):
    """Another process writes this run folder, or took it over."""
