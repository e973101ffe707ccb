"""Pure values and rules of the Runtime Manager: no I/O, no clock, no import from the rest of the package."""
