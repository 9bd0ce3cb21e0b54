"""What a message means, before and after its run. Pure; knows nothing else of the runtime.

``payload`` is how a raw message looks to Celery, ``policy`` what becomes of a delivery,
``outcome`` of a run, ``attributes`` the framework's own, ``counters`` how many ended how.
"""
