"""Image quality indices under named conventions.

Images are [S, H, W] with peak 1; the reference comes second. An index alone has no meaning: the
same pair differs by decibels between the definitions in use, so every number belongs to one of
`conventions.CONVENTIONS`.
"""
