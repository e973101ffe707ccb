"""One place each where a library or the operating system is touched."""
