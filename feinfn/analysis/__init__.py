"""Studies of a trained network: latent codes, filters, frequencies and spectra."""
