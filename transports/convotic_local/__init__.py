"""One server process per data folder: the first client starts it, it ends when idle.

The emulator and the embedded store run this way. lock.py has the file lock that makes "one server a
folder" true, folder.py says which folders may be used, server.py finds, starts and ends the server
and keeps the record of it, browser.py says which requests a local page answers, announced.py which
page shows a folder. Imports the standard library alone, so that the emulator can be installed
alone; convotic_emulator, convotic_pubsub and convotic_celery import it.
"""

from convotic_local.folder import FolderRefused, prepare_folder, private_folder, runtime_folder
from convotic_local.lock import FileLock
from convotic_local.server import FolderInUse, LocalServer, StartError

__all__ = [
    "FileLock",
    "FolderInUse",
    "FolderRefused",
    "LocalServer",
    "StartError",
    "prepare_folder",
    "private_folder",
    "runtime_folder",
]
