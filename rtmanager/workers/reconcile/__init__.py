"""Records and containers kept in agreement: what to look at, one game, the scan of all, the events, the strays."""
