"""The default pool: async handlers on one event loop, plain ones in threads.

``pool`` is what Celery calls, ``job`` one call of it, ``tracer`` Celery's tracer as a coroutine,
``threads`` the threads, ``watchdog`` names what blocks the loop, ``gc_tuning`` is for the whole
process, ``thread_pool`` is Celery's ``-P threads``. Imported by ``worker`` alone; knows
``execution`` and what is below it.
"""
