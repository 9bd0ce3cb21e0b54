"""The AsyncAPI document as one HTML page: no script, nothing loaded from anywhere. Pure.

Everything that comes from the document is escaped: docstrings and names are other people's text.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

__all__ = ["render_asyncapi"]

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.6rem } h2 { font-size: 1.2rem; margin-top: 2.5rem }
h3 { font-size: 1rem; margin: 1.2rem 0 .3rem }
code, pre { font: .9em ui-monospace, monospace }
pre { background: var(--soft); padding: .8rem; overflow-x: auto }
table { border-collapse: collapse; width: 100% }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .6rem .3rem 0; text-align: left;
         vertical-align: top }
section { border-top: 1px solid var(--line) } nav a { display: block }
summary { cursor: pointer }
"""


def render_asyncapi(document: Mapping[str, Any]) -> str:
    """Return the page of an AsyncAPI document; a handler's dead letters stand beside it."""
    received = [
        (name, operation)
        for name, operation in document["operations"].items()
        if operation["action"] == "receive"
    ]
    title = escape(document["info"]["title"])
    links = "".join(
        f'<a href="#{_anchor(name)}"><code>{escape(name)}</code></a>' for name, _ in received
    )
    sections = "".join(_handler(name, operation, document) for name, operation in received)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{title}</title><style>{_STYLE}</style></head><body>"
        f"<h1>{title}</h1><nav>{links or '<p>There are none.</p>'}</nav>"
        f"{sections}{_models(document['components']['schemas'])}"
        f"<h2>Document</h2>{_json('The whole document', document)}</body></html>\n"
    )


def _handler(name: str, operation: Mapping[str, Any], document: Mapping[str, Any]) -> str:
    facts = operation["x-convotic"]
    channel = document["channels"][_last(operation["channel"]["$ref"])]
    messages = [
        document["components"]["messages"][_last(each["$ref"])] for each in operation["messages"]
    ]
    payloads = "".join(
        f"<h3>Payload, <code>{escape(message['contentType'])}</code></h3>"
        f"{_schema(message['payload'])}"
        for message in messages
    )
    rows = {
        "topic": channel["address"],
        "subscription": facts["subscription"],
        "module": f"{facts['module']} {facts['moduleVersion']}",
        "retries": facts["options"]["max_retries"],
        "ack deadline": f"{facts['options']['ack_deadline']:g} s",
        "concurrency": facts["options"]["concurrency"],
    }
    cells = "".join(
        f"<tr><th>{escape(label)}</th><td><code>{escape(str(value))}</code></td></tr>"
        for label, value in rows.items()
    )
    return (
        f'<section id="{_anchor(name)}"><h2><code>{escape(name)}</code></h2>{_text(operation)}'
        f"<table>{cells}</table>{payloads}"
        f"{_json('Options', facts['options'])}</section>"
    )


def _models(schemas: Mapping[str, Any]) -> str:
    parts = ["<h2>Models</h2>"] if schemas else []
    for name, schema in schemas.items():
        heading = f'<h3 id="model-{_anchor(name)}">{escape(name)}</h3>'
        parts.append(f"{heading}{_text(schema)}{_schema(schema)}")
    return "".join(parts)


def _schema(schema: Mapping[str, Any]) -> str:
    properties = schema.get("properties")
    if not properties:
        return f"<p>{_type_of(schema)}</p>"
    required, optional = set(schema.get("required", ())), " <small>optional</small>"
    rows = "".join(
        f"<tr><td><code>{escape(name)}</code>{'' if name in required else optional}</td>"
        f"<td>{_type_of(value)}</td><td>{escape(_note(value))}</td></tr>"
        for name, value in properties.items()
    )
    return f"<table>{rows}</table>{_json('JSON Schema', schema)}"


def _type_of(schema: Mapping[str, Any]) -> str:
    """Return what kind of value it is, in a few words, as HTML."""
    if "$ref" in schema:
        name = _last(schema["$ref"])
        return f'<a href="#model-{_anchor(name)}">{escape(name)}</a>'
    for word in ("anyOf", "oneOf", "allOf"):
        if word in schema:
            return " or ".join(_type_of(choice) for choice in schema[word])
    if "enum" in schema or "const" in schema:
        values = schema.get("enum", [schema.get("const")])
        return " or ".join(f"<code>{escape(json.dumps(value))}</code>" for value in values)
    kind = schema.get("type", "any JSON")
    if kind == "array" and "items" in schema:
        return f"list of {_type_of(schema['items'])}"
    name = f"{kind} ({schema['format']})" if "format" in schema else str(kind)
    return escape(name)


def _note(schema: Mapping[str, Any]) -> str:
    limits = ("default", "minimum", "maximum", "minLength", "maxLength", "pattern")
    found = [schema["description"]] if "description" in schema else []
    found += [f"{word}: {json.dumps(schema[word])}" for word in limits if word in schema]
    return "; ".join(found)


def _text(described: Mapping[str, Any]) -> str:
    return "".join(_paragraphs(described.get("summary", ""), described.get("description", "")))


def _paragraphs(*texts: str) -> Iterator[str]:
    for text in texts:
        for paragraph in filter(None, text.split("\n\n")):
            yield f"<p>{escape(paragraph)}</p>"


def _json(label: str, value: object) -> str:
    text = escape(json.dumps(value, indent=2, ensure_ascii=False))
    return f"<details><summary>{escape(label)}</summary><pre>{text}</pre></details>"


def _last(reference: str) -> str:
    return reference.rpartition("/")[2]


def _anchor(name: str) -> str:
    return escape("".join(c if c.isalnum() else "-" for c in name))
