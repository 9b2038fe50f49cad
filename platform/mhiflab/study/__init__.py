"""Studies: from a YAML file to checked specs with an identity."""
