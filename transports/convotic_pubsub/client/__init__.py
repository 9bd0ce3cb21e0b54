"""The only files that call gRPC, and the thread that they run on.

``io_loop`` is the thread, ``channels`` opens connections, ``rpc`` has the methods and translates
errors, ``broker`` knows which server it is and where. ``provisioning`` makes topics and
subscriptions, ``resource_messages`` are their settings as the API has them, ``backlog_size`` counts
their messages; ``resources`` is all that for blocking callers. For tools, ``admin`` changes what
exists and ``inspection`` looks at messages.

Imports the pure files; imported by ``consume``, ``publish``, ``celery`` and ``session``.
"""
