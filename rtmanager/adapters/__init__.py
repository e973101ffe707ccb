"""Adapters to libraries and the operating system: one place for each."""
