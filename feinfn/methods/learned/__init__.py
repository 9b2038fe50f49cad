"""Learned methods besides FeINFN, each in one file."""
