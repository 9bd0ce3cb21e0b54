"""Publishes what is due: delayed messages (``delay=``), and the modules' schedules.

``delayed_publisher`` is used by ``worker`` and knows the context alone; ``beat`` is the app's, for
Celery's beat.
"""
