"""The context's services for ``async def`` handlers; ``_sync`` is generated from this package.

``context`` is ``ctx``; ``contacts``, ``conversations``, ``messages``, ``storage``, ``pubsub``,
``schedule`` and ``workflows`` are its services, ``protocols`` is what a replacement must implement.
"""
