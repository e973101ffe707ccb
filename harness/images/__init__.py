"""The images that tests run on: PostgreSQL, Redis, the game engine and, for tests of pulls, an image registry.

Each is built on a base: an ordinary image of a registry where one answers, else a small Debian made on this
machine from its own package sources. They are kept, and built anew only when what they are made of changes.
"""

from harness.images.catalogue import ENGINE_ALIASES, EngineImage, engine, ensure_all, image_registry, postgres, redis

__all__ = ["ENGINE_ALIASES", "EngineImage", "engine", "ensure_all", "image_registry", "postgres", "redis"]
