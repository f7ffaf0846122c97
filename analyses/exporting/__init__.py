"""What is taken out of here for other programs."""
