"""Learned methods beside FeINFN, each in one file."""
