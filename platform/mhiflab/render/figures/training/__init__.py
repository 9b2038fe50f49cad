"""Figures of training: curves, cost and searches."""
