"""Serving a bundle by HTTP, for tests and staging: scores, exploration, and a log that an import reads."""
