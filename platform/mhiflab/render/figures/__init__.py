"""Figures: one file a kind, which holds its options and its plot."""
