"""Inference: fusion of any pair of files by a trained network."""
