"""What experiments are made of: problems, pairs, disturbances, ablations, tracks, the maths of attention."""
