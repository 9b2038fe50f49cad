"""Databases that hold records: how they are judged, read, made and migrated."""
