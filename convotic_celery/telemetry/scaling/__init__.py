"""How many workers are needed: from what workers report to the store, and what the broker knows.

``reporter.py`` runs in each worker and writes ``reports.py``; ``scaler.py`` runs behind
``convotic scaling``, which answers autoscalers (``answers.py``) also while no worker runs.
``demand.py`` decides, and is pure.
"""
