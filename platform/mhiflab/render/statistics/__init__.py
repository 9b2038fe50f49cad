"""Statistics: paired comparisons of methods, and verdicts in words."""
