"""The trained model organism: its recipe, its weights, its card."""
