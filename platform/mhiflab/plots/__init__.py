"""Figures from plain arrays and tables: the same numbers give the same bytes."""
