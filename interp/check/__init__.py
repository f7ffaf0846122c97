"""The proof of names: that every hook of a family reads and writes what its name says."""
