"""The context's services for plain ``def`` handlers.

``context`` is ``ctx``; ``contacts``, ``conversations``, ``messages``, ``storage``, ``pubsub``,
``schedule`` and ``workflows`` are its services, ``protocols`` is what a replacement must implement.
"""

# Generated from _async/__init__.py by scripts/unasync.py; edit that.
