"""Protocols: how the inputs of a method are made from a scene, as code with a name and a hash."""
