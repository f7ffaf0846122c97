"""The user's files while a run reads them: what is edited meanwhile must not go into a run that says it was made of the old."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from cos_interp.analyses.driver import identity
from cos_interp.analyses.driver.command import flag
from cos_interp.analyses.driver.errors import RunError
from cos_interp.analyses.driver.settings import AnalysisConfig

Stamp = tuple[int, int, int] | None  # of a file that need not be read for it; None where it is gone


class Watch:
    """The files that some settings name, as they were when it was made."""

    def __init__(self, config: AnalysisConfig):
        self.read: Callable[[], identity.Contents] = lambda: identity.inputs_of(config)
        self.held = self.read()
        self.paths = sorted(set(_paths(config, self.held)))
        self.stamps = [*map(_stamp, self.paths)]

    def check(self) -> None:
        """RunError for what has changed since, by option and entry. Reads a file again only where its time or size differ."""
        stamps = [*map(_stamp, self.paths)]
        if stamps == self.stamps:
            return
        if changed := list(identity.changed_inputs(self.held, self.read())):
            raise RunError(
                f"{'; '.join(changed)} while the run was computed: put it back and run the same command again, or give what is "
                "there now another --out"
            )
        self.stamps = stamps


def _stamp(path: Path) -> Stamp:
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_mtime_ns, facts.st_size, facts.st_ino


def _paths(config: AnalysisConfig, held: identity.Contents) -> Iterator[Path]:
    """Files, and folders: these change when something is put into them."""
    for field in identity.files_of(config):
        path = Path(getattr(config, field))
        yield from (path, *path.rglob("*")) if path.is_dir() else (path,)
        home = path if path.is_dir() else path.parent
        named = (entry.partition(" ") for entry in held[flag(field)])
        yield from (home / name for kind, _, name in named if kind in ("picture", "file"))
