"""Figures of images: what was fused, its errors and its spectra."""
