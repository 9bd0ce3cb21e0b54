"""The context's services for plain ``def`` handlers."""

# Generated from _async/__init__.py by scripts/unasync.py; edit that.
