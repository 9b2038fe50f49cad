"""FeINFN. Read `plain.py` first: the network as one would write it on a blackboard."""
