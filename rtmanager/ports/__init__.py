"""Interfaces to everything outside the manager; the adapters implement them."""
