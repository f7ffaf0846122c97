"""What went wrong with a probe: what was asked, what was found, what to do."""

from __future__ import annotations


class ProbeError(ValueError):
    """Data, a file or a request that does not make a probe."""
