"""What the page looks like: plain HTML, no scripts, everything from outside escaped."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from convotic_emulator import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Overview", "render_error", "render_messages", "render_overview"]

#: Of a message's data; use a client for the rest.
SHOWN_BYTES = 4000

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 70rem; margin: 1.5rem auto;
  padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 1.5rem; }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #8884;
  vertical-align: top; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
pre { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere;
  max-height: 15rem; overflow: auto; }
label { display: block; margin: .5rem 0; }
input, select, textarea { display: block; width: 100%; box-sizing: border-box; font: inherit; }
[role=status] { background: #2a8a4a33; padding: .5rem .8rem; }
"""


@dataclass(frozen=True)
class Overview:
    """A subscription's line."""

    name: str
    topic: str
    available: int
    outstanding: int
    dead_lettered: int
    oldest_seconds: float | None


def render_overview(
    topics: Sequence[tuple[str, int]],
    subscriptions: Sequence[Overview],
    *,
    published: str,
    dashboard: str | None = None,
) -> str:
    """Return the first page: all topics and subscriptions, and a form to publish.

    ``dashboard`` is the address of a page that shows more.
    """
    notice = f'<p role="status">Published, message id {escape(published)}.</p>' if published else ""
    if dashboard is not None:
        notice += (
            f'<p><a href="{escape(dashboard)}">Dashboard</a>: handlers, dead letters, delayed '
            "messages and workflows</p>"
        )
    topic_rows = "".join(
        f'<tr><td>{escape(name)}</td><td class="n">{count}</td></tr>' for name, count in topics
    )
    rows = "".join(
        f'<tr><td><a href="/subscription?name={quote(s.name, safe="")}">{escape(s.name)}</a></td>'
        f"<td>{escape(s.topic)}</td>"
        f'<td class="n">{s.available}</td><td class="n">{s.outstanding}</td>'
        f'<td class="n">{s.dead_lettered}</td><td class="n">{_age(s.oldest_seconds)}</td></tr>'
        for s in subscriptions
    )
    return _page(
        "Pub/Sub emulator",
        f"""{notice}
<h2>Subscriptions</h2>
<table><thead><tr><th>Name</th><th>Topic</th><th class="n">Available</th>
<th class="n">Outstanding</th><th class="n">Forwarded by policy</th>
<th class="n">Oldest</th></tr></thead><tbody>{rows or _nothing(6)}</tbody></table>
<h2>Topics</h2>
<table><thead><tr><th>Name</th><th class="n">Subscriptions</th></tr></thead>
<tbody>{topic_rows or _nothing(2)}</tbody></table>
{_publish_form(name for name, _ in topics) if topics else ""}""",
    )


def _publish_form(topics: Iterable[str]) -> str:
    options = "".join(f"<option>{escape(name)}</option>" for name in topics)
    return f"""
<h2>Publish a message</h2>
<form method="post" action="/publish">
<label>Topic <select name="topic" required>{options}</select></label>
<label>Data <textarea name="data" rows="4"></textarea></label>
<label>Attributes, one <code>key=value</code> a line
<textarea name="attributes" rows="2"></textarea></label>
<label>Ordering key <input name="ordering_key"></label>
<button>Publish</button>
</form>"""


def render_messages(
    name: str, messages: Sequence[tuple[Any, str, int]], *, following: int | None
) -> str:
    """Return a page of a subscription's unacknowledged messages: ``(message, state, attempts)``.

    Nothing is leased by looking.
    """
    rows = "".join(
        f"<tr><td>{escape(m.message_id)}</td><td>{escape(m.publish_time.ToJsonString())}</td>"
        f'<td>{state}</td><td class="n">{attempts}</td><td>{escape(m.ordering_key)}</td>'
        f"<td><pre>{_attributes(m)}</pre></td><td><pre>{_data(m.data)}</pre></td></tr>"
        for m, state, attempts in messages
    )
    link = ""
    if following is not None:
        link = (
            f'<p><a href="/subscription?name={quote(name, safe="")}&amp;after={following}">'
            "Next messages</a></p>"
        )
    return _page(
        name,
        f"""<p><a href="/">All topics and subscriptions</a></p>
<table><thead><tr><th>Id</th><th>Published</th><th>State</th><th class="n">Failed attempts</th>
<th>Key</th><th>Attributes</th><th>Data</th></tr></thead>
<tbody>{rows or _nothing(7)}</tbody></table>{link}""",
    )


def render_error(text: str) -> str:
    """Return a page that says why there is no other."""
    return _page("Not done", f'<p role="alert">{escape(text)}</p><p><a href="/">Back</a></p>')


def _page(title: str, body: str) -> str:
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>'
        f"<body><h1>{escape(title)}</h1>{body}<footer><small>convotic_emulator {__version__}"
        "</small></footer></body></html>"
    )


def _nothing(columns: int) -> str:
    return f'<tr><td colspan="{columns}">none</td></tr>'


def _attributes(message: Any) -> str:
    return escape("\n".join(f"{key}={value}" for key, value in sorted(message.attributes.items())))


def _data(data: bytes) -> str:
    shown = data[:SHOWN_BYTES]
    try:
        # A cut may go through a character.
        text = shown.decode(errors="strict" if len(data) <= SHOWN_BYTES else "ignore")
    except UnicodeDecodeError:
        text = shown.hex(" ")
    rest = f"\n… {len(data)} bytes in all" if len(data) > SHOWN_BYTES else ""
    return escape(text + rest)


def _age(seconds: float | None) -> str:
    if seconds is None:
        return ""
    for unit, size, most in (("s", 1, 60), ("min", 60, 60), ("h", 3_600, 24)):
        shown = f"{seconds / size:.1f}"
        if float(shown) < most:  # what is shown: 59.97 min are an hour
            return f"{shown} {unit}"
    return f"{seconds / 86_400:.1f} d"
