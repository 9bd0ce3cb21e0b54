"""Flower's templates with our additions, and our own: :class:`FlowerLoader`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from tornado.template import Loader, Template

__all__ = ["FlowerLoader"]

logger = logging.getLogger(__name__)

_OURS = Path(__file__).parent / "templates"

_TAB = """
        <li class="nav-item">
          <a class="nav-link{% if active_tab == 'dead-letters' %} active{% end %}"
            href="{{ reverse_url('dead-letters') }}"
            {% if active_tab == 'dead-letters' %}aria-current="page"{% end %}>Dead letters</a>
        </li>"""
_REPLAY = """
      {% from convotic_celery.flower.parts import replay_form %}
      {% raw replay_form(handler, task) %}"""
_AGE_HEAD = """
          <th>Oldest</th>"""
_AGE = """
          <td>{% raw format_value(queue.get('oldest')) %}</td>"""

#: By template of Flower's: what is added behind which text.
_ADDITIONS: dict[str, list[tuple[str, str]]] = {
    "navbar.html": [(">Broker</a>\n        </li>", _TAB)],
    "task.html": [('<div class="detail-actions">', _REPLAY)],
    "broker.html": [
        ("<th>Ready</th>", _AGE_HEAD),
        ("<td>{% raw format_value(queue.get('messages_ready')) %}</td>", _AGE),
    ],
}


class FlowerLoader(Loader):
    """Loads a template of Flower's or ours. A page that has no room for an addition stays as it is.

    Args:
        root: Flower's folder of templates.
    """

    def __init__(self, root: str, **options: Any) -> None:
        super().__init__(root, **options)
        missing = [name for name in _ADDITIONS if not self._add(name)[1]]
        if missing:
            logger.warning(
                "This version of Flower has different pages (%s): our additions are missing",
                ", ".join(missing),
                extra={"action": "flower_changed"},
            )

    def _create_template(self, name: str) -> Template:
        if (_OURS / name).is_file():
            text = (_OURS / name).read_text(encoding="utf-8")
        else:
            text = self._add(name)[0]
        return Template(text, name=name, loader=self)

    def _add(self, name: str) -> tuple[str, bool]:
        """Return a template's text with our additions; False if one of them has no place."""
        path = Path(self.root) / name
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        additions = _ADDITIONS.get(name, [])
        if not all(text.count(mark) == 1 for mark, _ in additions):
            return text, False
        for mark, added in additions:
            text = text.replace(mark, mark + added)
        return text, True
