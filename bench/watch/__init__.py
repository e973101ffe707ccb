"""Watching, against its unavoidable calls: bare requests, lists and events."""
