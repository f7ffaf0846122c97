"""What runs experiments: pieces, units on disk, workers, the registry, findings, pages."""
