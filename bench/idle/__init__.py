"""The cost of an idle manager."""
