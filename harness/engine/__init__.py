"""The reference game engine: the smallest program that keeps the engine contract (contract §7)."""
