"""Report of a study: one HTML file that needs no other file."""
