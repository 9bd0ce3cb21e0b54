"""The options ``deduplicate`` and ``concurrency_key``: locks in the store, held while a run goes on.

``key_lock`` takes and frees them, ``renewer`` keeps them, ``scripts`` are the Lua behind both. Used by
``execution`` and ``worker``; knows ``delivery`` alone.
"""
