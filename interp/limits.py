"""Sizes beyond which no run ends, and what this machine has."""

import os

MOST_STEPS = 10_000  # denoising steps: ten times what schedulers were trained with


def host_memory() -> int:
    """Bytes of memory that this machine has, free or not."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def enough(count: float) -> str:
    """As :func:`shown_size`, rounded up, as an option takes it.

    >>> enough(20_970_000), enough(2.151e12)
    ('21MB', '2.16TB')
    """
    digits = max(0, len(str(int(count))) - 3)
    return shown_size(-(-int(count) // 10**digits) * 10**digits).replace(" ", "")


def shown_size(count: float) -> str:
    """Bytes in the unit that shows them.

    >>> shown_size(999), shown_size(20_970_000), shown_size(2.15e12)
    ('999 B', '21 MB', '2.15 TB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
