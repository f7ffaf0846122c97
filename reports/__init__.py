"""Results to one self-contained HTML file. Knows tables and text, not models."""
