"""Shared code of the suite: cases, fault proxies, images, ways to start a manager."""
