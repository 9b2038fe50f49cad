"""Figures of what a trained network holds."""
