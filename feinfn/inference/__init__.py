"""Inference: a trained network on any pair of files."""
