"""Measurements; see README.md. Not part of any package that is shipped."""
