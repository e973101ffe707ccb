"""`TestCase` base classes over the fixtures, and what a failed test leaves."""
