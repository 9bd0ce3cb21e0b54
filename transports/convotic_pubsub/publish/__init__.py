"""Publishing: confirmed, in batches, in order.

``publisher`` sends and confirms; ``waiting`` is what is on its way, with its callers' futures;
``sender`` is the thread that waits for a single publish; ``forked`` publishes for a forked child.

Imports ``client`` and the pure files. ``session`` wires it; nothing here knows the session.
"""
