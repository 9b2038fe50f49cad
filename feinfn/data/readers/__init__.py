"""Readers: every layout in which scenes come, one file each, all returning `Scene`."""
