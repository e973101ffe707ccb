"""The Python packages that the harness needs, and the message when one is missing or does not load."""

import importlib

#: What pip installs, by the import name.
NEEDED = {
    "docker": "docker",
    "psycopg": "'psycopg[binary,pool]'",
    "psycopg_pool": "'psycopg[binary,pool]'",
    "redis": "redis",
}


def missing(name: str, error: ImportError) -> str:
    """Why the import of package `name` failed, in one line with the remedy."""
    if error.name == name:
        return f"the Python package {name} is missing: pip install {NEEDED[name]}"
    cause = " ".join(str(error).split())
    return f"the Python package {name} does not load ({cause}): pip install {NEEDED[name]}"


def why_unusable(*names: str) -> str | None:
    """Why one of these packages cannot be used here, in one line; None when they all load."""
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError as error:
            return missing(name, error)
    return None
