"""Whether a task's cases are the same ones wherever they are made: their content as digests, here and in other processes."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cos_interp.tasks.scorer import Case

CHILD = "import sys; from cos_interp.tasks.check import print_digests; print_digests(sys.argv[1], int(sys.argv[2]))"


def digest(case: Case) -> str:
    """sha256 of what a case says: its texts, expectation, picture and true video."""
    held = [case.name, case.prompt, case.expected, case.image, case.truth, case.group, case.part, case.key]
    return hashlib.sha256(_content(held)).hexdigest()


def _content(value: Any) -> bytes:
    """As bytes that equal values share, whatever the order of sets and of keys."""
    if isinstance(value, np.ndarray) and value.dtype != object:
        inner = [f"{value.dtype}{value.shape}".encode(), np.ascontiguousarray(value).tobytes()]
    elif isinstance(value, Mapping):
        inner = sorted(_content(key) + _content(each) for key, each in value.items())
    elif isinstance(value, (set, frozenset)):
        inner = sorted(map(_content, value))
    elif isinstance(value, (list, tuple, np.ndarray)):
        inner = [_content(each) for each in value]
    elif value is None or isinstance(value, (str, int, float, complex, bytes, np.generic)):
        inner = [repr(value).encode()]
    else:  # an object: its name and its parts, since its repr may be its address
        inner = [type(value).__qualname__.encode(), _content(getattr(value, "__dict__", None))]
    return type(value).__name__.encode() + b"".join(len(part).to_bytes(8, "big") + part for part in inner)


def elsewhere(text: str, items: int, hash_seed: int) -> Sequence[str]:
    """The digests that another process finds, in which texts have other hashes, so that sets have another order. ValueError, with
    what it said last, where it fails."""
    env = {**os.environ, "PYTHONHASHSEED": str(hash_seed), "PYTHONPATH": os.pathsep.join(path or os.curdir for path in sys.path)}
    done = subprocess.run([sys.executable, "-c", CHILD, text, str(items)], env=env, capture_output=True, text=True)
    if done.returncode:
        raise ValueError((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return found
