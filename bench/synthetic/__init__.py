"""Thousands of games without as many containers: their records, a daemon that tells of them, engines that answer.

What a manager has to do with ten thousand games can so be measured on a small machine: it talks to real PostgreSQL
and real Redis, to Docker's API on a socket, and to engines on sockets; only what stands behind the API is played.
"""
