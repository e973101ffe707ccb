"""Work on containers, against the bare calls of the Docker SDK that it needs."""
