"""Minutes of broken parts, and a ledger outside the system that says what became of each message.

``module.py`` has the handlers, ``world.py`` the processes, ``faults.py`` what is done to them,
``ledger.py`` what is counted; ``__main__.py`` runs it (``make chaos``).
"""
