"""Publishing. ``publisher`` sends and confirms; ``forked`` does it for a forked child.

Imports ``client`` and the pure files. ``session`` puts it together; nobody here knows it.
"""
