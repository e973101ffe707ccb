"""The internal REST API: an HTTP/1.1 server, its routes and their handlers."""
