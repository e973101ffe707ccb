"""Requirements of the harness on this machine: checks and installation.

`doctor` only checks; `up` installs and starts a Docker daemon where it may.
"""
