"""Makes kombu know ``pubsub://`` in every process where the package is installed.

kombu has no entry point for transports. ``convotic_pubsub.pth``, which Python reads at its start,
imports this file; it imports nothing itself, and waits for ``kombu.transport``. Where ``.pth``
files are not read (``python -S``, a zipped application), Celery loads the entry point below in the
group ``kombu.serializers``, and ``import convotic_pubsub`` does it, too.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # typing takes longer to import than all of this
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

__all__ = ["register", "serializer"]

_TRANSPORTS = "kombu.transport"


def register() -> None:
    """Make kombu know ``pubsub://``: now, or when it is imported. Idempotent."""
    module = sys.modules.get(_TRANSPORTS)
    if module is not None:
        _add_alias(module)
    elif not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def _add_alias(module: ModuleType) -> None:
    module.TRANSPORT_ALIASES.setdefault("pubsub", "convotic_pubsub.kombu.transport:Transport")
    # gRPC's own attempt at forking waits for its threads and then gives up with a line on stderr;
    # a forked child goes through publish/forked.py instead and never enters gRPC.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")


class _Finder:
    """Has the alias added as soon as ``kombu.transport`` has been imported."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name != _TRANSPORTS:
            return None
        sys.meta_path.remove(self)
        for finder in sys.meta_path:
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                _run_after(spec)
                return spec
        return None


def _run_after(spec: ModuleSpec) -> None:
    """Have the alias added when the module of a spec was executed."""
    loader: Any = spec.loader
    execute = loader.exec_module

    def execute_and_add(module: ModuleType) -> None:
        execute(module)
        _add_alias(module)

    loader.exec_module = execute_and_add


def _raw(data: bytes) -> bytes:
    return data


register()

#: What the entry point hands to ``kombu.serialization.register``: bytes as they are.
serializer = (_raw, _raw, "application/x-pubsub-raw", "binary")
