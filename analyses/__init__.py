"""One experiment a module: configuration, run, result, figures."""
