"""What survives a restart: one SQLite file, and the rows in it.

``store.Store`` opens the file and holds its parts: ``database`` (the file and its transactions;
``datafile`` opens and checks it), ``numbers``, ``counts``, ``backlogs`` (messages; ``packs``: those
of large requests, ``wire``: their bytes), ``leases``, ``seeks`` and ``resources``.
``message.Message`` is one message as a row and in memory.

The lowest room: it imports ``errors`` and nothing else of the emulator. The engine imports it.
"""
