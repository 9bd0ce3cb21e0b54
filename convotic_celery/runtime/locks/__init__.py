"""The options ``deduplicate`` and ``concurrency_key``: locks in the store, kept during a run.

``key_lock`` takes and frees them, ``renewer`` keeps them, ``scripts`` are the Lua behind both;
``outage`` says once what an unavailable store prevents.
Used by ``execution`` and ``worker``; knows ``delivery`` alone.
"""
