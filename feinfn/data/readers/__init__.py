"""Readers: scenes and arrays from files of any format, told by content."""
