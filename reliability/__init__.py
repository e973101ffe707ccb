"""Tools that break the manager on purpose and check the result; none of them is part of the service."""
