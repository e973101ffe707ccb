"""The service-local integration suite: a real Runtime Manager on real services. See docs/."""
