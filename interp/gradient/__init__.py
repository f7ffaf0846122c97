"""Gradients of a number that a generation leads to, with respect to its activations, by one sweep back over a recorded run."""
