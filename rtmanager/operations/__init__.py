"""What RTM does to a game: start, stop, restart, patch, cleanup, and the executor that runs them."""
