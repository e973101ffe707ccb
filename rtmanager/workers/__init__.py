"""Background workers, one module each."""
