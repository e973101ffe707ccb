"""What things cost with ten games, and with ten thousand."""
