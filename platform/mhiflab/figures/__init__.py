"""Figures from recorded artifacts, with the same bytes every time."""
