"""Builds the adapters from the configuration, and connects all parts."""
