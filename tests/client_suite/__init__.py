"""The system tests of Google's Python client, run on the emulators. See ``__main__.py``."""
