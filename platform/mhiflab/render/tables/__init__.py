"""Tables: rows, published values, and the formats they are written in."""
