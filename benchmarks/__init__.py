"""What the tool costs, beside the same by hand: ``make bench``."""
