"""A client of the Debug Adapter Protocol, as VS Code is one."""

from __future__ import annotations

import json
import socket
from typing import Any, Self

from tests.support.waiting import PATIENCE

__all__ = ["Debugger"]


class Debugger:
    """Attached to a process that listens. As a context manager it is detached at the end."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self._input = self._socket.makefile("rb")
        self._number = 0
        self._seen: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.send("disconnect", terminateDebuggee=False)
        self._input.close()
        self._socket.close()

    def attach(self, breakpoints: dict[str, list[int]]) -> None:
        """Attach with breakpoints at these lines of files, in the order that VS Code has."""
        self.request("initialize", adapterID="debugpy", clientID="vscode", pathFormat="path")
        attaching = self.send("attach", name="Attach", type="debugpy", justMyCode=True)
        self.wait_for(event="initialized")
        for path, lines in breakpoints.items():
            answer = self.request(
                "setBreakpoints",
                source={"path": path},
                breakpoints=[{"line": line} for line in lines],
            )
            assert all(each["verified"] for each in answer["breakpoints"]), answer
        self.request("configurationDone")
        self.wait_for(request_seq=attaching)

    def wait_until_stopped(self) -> tuple[int, dict[str, Any]]:
        """Wait until a thread stops; return its id and its uppermost frame."""
        thread: int = self.wait_for(event="stopped")["body"]["threadId"]
        frames = self.request("stackTrace", threadId=thread, levels=1)["stackFrames"]
        return thread, frames[0]

    def evaluate(self, expression: str, frame: dict[str, Any]) -> str:
        """Return what an expression is in a frame."""
        result: str = self.request(
            "evaluate", expression=expression, frameId=frame["id"], context="hover"
        )["result"]
        return result

    def request(self, command: str, **arguments: Any) -> Any:
        """Send a request, and return the body of its answer."""
        answer = self.wait_for(request_seq=self.send(command, **arguments))
        assert answer["success"], answer
        return answer.get("body", {})

    def send(self, command: str, **arguments: Any) -> int:
        """Send a request; return its number."""
        self._number += 1
        request = {
            "type": "request",
            "seq": self._number,
            "command": command,
            "arguments": arguments,
        }
        raw = json.dumps(request).encode()
        self._socket.sendall(b"Content-Length: %d\r\n\r\n%s" % (len(raw), raw))
        return self._number

    def wait_for(self, **wanted: object) -> dict[str, Any]:
        """Return the first message that has these fields, and take it out of those that came."""
        while True:
            for message in self._seen:
                if wanted.items() <= message.items():
                    self._seen.remove(message)
                    return message
            self._seen.append(self._read())

    def _read(self) -> dict[str, Any]:
        length = 0
        while line := self._input.readline().strip():
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        assert length, f"the debugger has closed the connection; before: {self._seen}"
        message: dict[str, Any] = json.loads(self._input.read(length))
        return message
