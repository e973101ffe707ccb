"""The images that tests run on: PostgreSQL, Redis, a general base and, for tests of pulls, an image registry.

Each is built on a base: an image of a registry where one answers, otherwise a small Debian built on this machine from
its own package sources. Images are kept, and rebuilt only when their inputs change.
"""

from harness.images.catalogue import base_image, image_registry, postgres, redis

__all__ = ["base_image", "image_registry", "postgres", "redis"]
