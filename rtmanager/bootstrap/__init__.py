"""Adapters made from the configuration, and all that is wired with them."""
