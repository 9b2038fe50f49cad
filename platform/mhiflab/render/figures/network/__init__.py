"""Figures of the parts of a trained network."""
