"""Sizes beyond which no run ends."""

MOST_STEPS = 10_000  # denoising steps: ten times what schedulers were trained with
