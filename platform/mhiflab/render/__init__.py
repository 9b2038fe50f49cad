"""Rendering: everything people read, from finished runs alone."""
