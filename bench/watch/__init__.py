"""Watching compared with the least that anybody has to do who watches: the bare questions, lists and events."""
