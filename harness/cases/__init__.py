"""`TestCase` base classes over the fixtures, and the artefacts of a failed test."""
