"""Classical methods: fusion without learning, from the two images alone."""
