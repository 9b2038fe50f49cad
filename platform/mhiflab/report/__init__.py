"""A study as one HTML file that needs nothing else: results, pictures, spectra, provenance."""
