"""The internal REST API: a small HTTP/1.1 server, the table of its routes, and the document that describes them."""
