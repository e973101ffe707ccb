"""How soon a manager serves, against a process that does no more than import the packages that it needs."""
