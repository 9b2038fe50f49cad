"""Classical methods: fusion that learns from nothing but the two images."""
