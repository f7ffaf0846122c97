"""How one run is played: the pipeline's own loop with stand-ins, one nnsight trace a call, a step clock."""
