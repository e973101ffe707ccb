"""Time until a manager is ready, against a process that only imports the packages that it needs."""
