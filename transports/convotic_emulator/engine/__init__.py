"""What happens to messages: the rules of Pub/Sub, without any network.

Pure, with time passed in: ``state`` (one subscription) with its ``backlog``, ``ordering``,
``lease``, ``rules``; ``filter``, ``plain`` (requests of data only), ``names``, ``clock``. On top of
them ``registry`` (what exists) and ``broker`` (publish, dead letters, seek). In the event loop:
``engine`` holds it all together, ``commits`` shares commits and waits for a full disk, ``delivery``
serves waiting consumers, ``seeks`` and ``upkeep`` work in slices.

Imports ``storage`` and ``errors``. Services and the server import it; it knows neither.
"""
