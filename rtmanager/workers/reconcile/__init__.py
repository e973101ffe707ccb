"""Reconciles records with containers: the queue, one game, the scan of all games, the event listener, the strays."""
