"""Linear probes by layer and step."""
