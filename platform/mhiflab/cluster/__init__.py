"""Clusters: connect to one, fit trials to its nodes, submit studies, and examine nodes."""
