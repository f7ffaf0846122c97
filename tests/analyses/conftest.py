"""A finished run on disk."""

from __future__ import annotations

import pytest
from stores import fill


@pytest.fixture
def folder(tmp_path):
    """A finished run of three small units."""
    fill(tmp_path / "run")
    return tmp_path / "run"
