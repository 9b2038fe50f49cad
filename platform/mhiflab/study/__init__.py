"""Studies: read a YAML file, check it, and identify its trials."""
