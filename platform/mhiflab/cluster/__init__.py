"""Clusters: where trials run, what fits there, and how a study gets there."""
