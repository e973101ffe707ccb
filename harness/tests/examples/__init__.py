"""One example for each fixture: short tests to copy into another project."""
