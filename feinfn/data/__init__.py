"""Scenes, splits, fingerprints and training patches."""
