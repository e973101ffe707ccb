"""The reference game engine: the smallest program that keeps the engine contract (docs/contract.md)."""
