"""Tools that break the manager on purpose and check what it does then; none of them is part of the service."""
