"""Costs with ten games and with ten thousand."""
