"""A study's report: one HTML file with all it needs inside."""
