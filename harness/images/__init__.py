"""The images that tests run on: PostgreSQL, Redis, a base for anything and, for tests of pulls, an image registry.

Each is built on a base: an ordinary image of a registry where one answers, else a small Debian made on this
machine from its own package sources. They are kept, and built anew only when what they are made of changes.
"""

from harness.images.catalogue import base_image, image_registry, postgres, redis

__all__ = ["base_image", "image_registry", "postgres", "redis"]
