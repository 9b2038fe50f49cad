"""Protocols: recipes that make a method's inputs from a scene, with a name and a hash."""
