"""Work on containers, compared with the bare calls of the Docker SDK that nobody can do without."""
