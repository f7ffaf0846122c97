"""Video transformers of diffusers that are out of reach, and the true reason."""

from __future__ import annotations

REASONS: dict[str, str] = {}
