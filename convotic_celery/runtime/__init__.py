"""How a handler becomes a Celery task, and what happens to its messages in a worker.

========================  =====================================================================
``worker/``               Celery's worker: consumer, requests, lifespans at start, pauses, banner
``pool/``                 the default pool: jobs on an event loop and in threads
``execution/``            one run: the task, its deadline, the event loop, the modules' lifespans
``locks/``                ``deduplicate`` and ``concurrency_key``, in the store
``schedule/``             publishes what ``delay=`` kept, when it is due
``publish.py``            ``ctx.pubsub`` and ``handler.delay`` on the transport
``delivery/``             what a message means: its payload, policy, outcome, attributes; pure
``celery_internals.py``   all undocumented parts of Celery that are used here
========================  =====================================================================

Each imports only what stands below it. ``lint-imports`` checks that.
"""
