"""Operations on games (start, stop, restart, patch, cleanup) and the executor that runs them."""
