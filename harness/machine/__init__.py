"""The machine the harness runs on: what it has, and getting what it lacks.

`doctor` looks and changes nothing; `up` installs and starts a Docker daemon where it may.
"""
