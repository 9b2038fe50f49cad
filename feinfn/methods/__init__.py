"""Methods: every way to fuse an LR-HSI with an MSI, learned or classical, behind one interface."""
