"""Training: the loop, its state, and the workers that share it."""
