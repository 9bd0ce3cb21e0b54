"""Doctor: can a deployment run, and if not, what has to be fixed?

``finding`` is what a check says; ``run`` goes through the checks, which are a file each: ``broker``
(credentials, topology, retention), ``rights``, ``store``, ``versions``, ``control`` (subscriptions
that killed processes have left) and ``probe``, which sends a message through dead-lettering and
replay with a real worker, whose module is ``probe_module``. Reading and judging are separate; the
latter is pure.

Imported by the command line.
"""
