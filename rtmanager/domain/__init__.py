"""Pure values and rules: no I/O, no clock, no import from the rest of the package."""
