"""Publishing: confirmed, in batches, in order.

``publisher`` sends and confirms; ``waiting`` is what is on its way, with its callers' futures;
``confirmation`` is the future of a coroutine; ``forked`` publishes for a forked child.

Imports ``client`` and the pure files. ``session`` wires it; nothing here knows the session.
"""
