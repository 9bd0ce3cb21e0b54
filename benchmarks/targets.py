"""The targets, as ratios of one run; and how figures are shown."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path

from benchmarks.figures import Sample

__all__ = ["TARGETS", "Target", "find_worse", "print_targets", "write_chart"]

#: A ratio this much worse than in the guarding run is more than noise: medians of quiet runs differ
#: by up to a fifth.
_TOLERANCE = 1 / 3
#: Tails, and figures that depend on a JVM's warmth, differ more: 1.6 and 2.2, 4.7 and 7.2 were seen
#: in two runs within an hour.
_LOOSE = 1.0


@dataclass(frozen=True, slots=True)
class Target:
    """A figure, divided by another or by a number, and the bound of the quotient."""

    title: str
    figure: str
    #: Name of the other figure, or a number.
    base: str | float
    bound: float
    at_least: bool
    unit: str = "/s"
    #: How much worse than in an earlier run it may be, as a share.
    tolerance: float = _TOLERANCE

    def quotient(self, samples: Mapping[str, Sample]) -> float:
        """Return the ratio: the median of those of neighbours where both were taken in turns."""
        ours = samples[self.figure]
        if isinstance(self.base, float):
            return ours.median / self.base
        base = samples[self.base]
        if len(ours.values) == len(base.values):
            pairs = zip(ours.values, base.values, strict=True)
            return statistics.median(one / other for one, other in pairs)
        return ours.median / base.median

    def holds(self, samples: Mapping[str, Sample]) -> bool:
        found = self.quotient(samples)
        return found >= self.bound if self.at_least else found <= self.bound


_OURS = "throughput/convotic"
TARGETS = (
    Target("throughput, to Celery + RabbitMQ", _OURS, "throughput/celery rabbitmq", 1.5, True),
    Target("throughput, to Celery + Redis", _OURS, "throughput/celery redis", 6.0, True),
    Target(
        "throughput, to gcpubsub (Google)",
        "google/convotic",
        "google/celery gcpubsub",
        3.0,
        True,
        tolerance=_LOOSE,
    ),
    Target("throughput, to dramatiq + Redis", _OURS, "throughput/dramatiq redis", 0.0, True),
    Target("throughput, events on, to off", "throughput/convotic, events on", _OURS, 0.8, True),
    Target(
        "throughput, typed payload, to untyped", "throughput/convotic, typed", _OURS, 0.85, True
    ),
    Target(
        "throughput, deduplicate, to without", "throughput/convotic, deduplicate", _OURS, 0.5, True
    ),
    Target(
        "throughput, concurrency key, to without",
        "throughput/convotic, concurrency key",
        _OURS,
        0.5,
        True,
    ),
    Target(
        "order handler, to Celery + RabbitMQ",
        "orders/convotic",
        "orders/celery rabbitmq",
        3.0,
        True,
    ),
    Target(
        "the same as a plain def, to RabbitMQ's",
        "orders/convotic, plain",
        "orders/celery rabbitmq",
        1.0,
        True,
    ),
    Target("order handler, to our no-op", "orders/convotic", _OURS, 0.26, True),
    Target(
        "rows in a database, batches, to one by one", "rows/batches", "rows/one by one", 3.0, True
    ),
    Target("throughput, two workers, to one", "throughput/convotic, two workers", _OURS, 1.7, True),
    Target("throughput, to Celery in memory", _OURS, "throughput/celery, in memory", 0.0, True),
    *(
        Target(
            f"latency {p}, to Celery + RabbitMQ",
            f"latency/convotic/{p}",
            f"latency/celery rabbitmq/{p}",
            1.0,
            False,
            "ms",
            tolerance,
        )
        for p, tolerance in (("p50", _TOLERANCE), ("p99", _LOOSE))
    ),
    Target(
        "latency p50, 300 handlers, to one",
        "latency/convotic, 300 handlers/p50",
        "latency/convotic/p50",
        1.25,
        False,
        "ms",
    ),
    Target("backlog: rate at its end", "backlog/rate last", "backlog/rate first", 0.85, True),
    Target(
        "backlog: worker's MB at its end",
        "backlog/worker last",
        "backlog/worker first",
        1.2,
        False,
        "MB",
    ),
    Target(
        "backlog: emulator's MB at its end",
        "backlog/emulator last",
        "backlog/emulator first",
        1.2,
        False,
        "MB",
    ),
    *(
        Target(
            f"throughput at {trip} ms, to at 0 ms",
            f"distance/convotic, {trip} ms",
            "distance/convotic, 0 ms",
            bound,
            True,
        )
        for trip, bound in ((5, 0.9), (20, 0.9), (50, 0.8))
    ),
    *(
        Target(
            f"throughput at {trip} ms, to gcpubsub",
            f"distance/convotic, {trip} ms",
            f"distance/celery gcpubsub, {trip} ms",
            0.0,
            True,
        )
        for trip in (0, 5, 20, 50)
    ),
    *(
        Target(
            f"deduplicate, store at {trip} ms, to 0 ms",
            f"distance/convotic, store {trip} ms",
            "distance/convotic, store 0 ms",
            0.9,
            True,
        )
        for trip in (1, 5)
    ),
    *(
        Target(
            f"a second worker's share at {trip} ms",
            f"distance/convotic, second worker, {trip} ms",
            0.5,
            0.9,
            True,
            "",
        )
        for trip in (0, 20)
    ),
    Target("100 ms x 100, to the ideal 1,000/s", "waiting/100", 1000.0, 0.85, True),
    Target("1 s x 1,000, to the ideal 1,000/s", "waiting/1000", 1000.0, 0.85, True),
    Target(
        "publish_many, to apply_async (RMQ)",
        "publish/convotic/many",
        "publish/celery rabbitmq",
        4.0,
        True,
    ),
    Target(
        "1,000 awaited publishes, to publish_many",
        "publish/convotic/concurrent",
        "publish/convotic/many",
        0.5,
        True,
    ),
    Target(
        "one publish p50, to raw gRPC",
        "publish/convotic/single",
        "publish/convotic/raw",
        1.2,
        False,
        "ms",
    ),
    Target("300 handlers: start, in 5 s", "handlers/300/start", 5.0, 1.0, False, "s"),
    Target("300 handlers: idle, in 2 % of a core", "handlers/300/idle", 0.02, 1.0, False, ""),
    Target(
        "worker start, to Celery on Redis", "start/convotic", "start/celery redis", 1.2, False, "s"
    ),
    Target("convotic --help, in 300 ms", "start/help", 0.3, 1.0, False, "s"),
)


def print_targets(samples: Mapping[str, Sample], missing: Mapping[str, str]) -> None:
    """Print each figure with its target, and whether it is reached."""
    print(f"\n{'':<38}{'convotic':>12}{'peer':>12}{'ratio':>8}  target   spread of ours")
    for target in TARGETS:
        sample = samples.get(target.figure)
        base = target.base if isinstance(target.base, float) else None
        other = samples.get(str(target.base))
        if sample is None or (base is None and other is None):
            reason = missing.get(target.figure) or missing.get(str(target.base)) or "not measured"
            print(f"{target.title:<38}{'missing':>12}: {reason.splitlines()[-1][:90]}")
            continue
        compared = base if other is None else other.median
        sign = ">=" if target.at_least else "<="
        bound = f"{sign} {target.bound:g}" if target.bound else "none"
        mark = "  " if not target.bound else "ok" if target.holds(samples) else "NO"
        print(
            f"{target.title:<38}{sample.median:>9,.4g} {target.unit:<2}{compared:>10,.4g}  "
            f"{target.quotient(samples):>7.2f}  {bound:<7}{mark} {sample.spread}"
        )
    for name, reason in missing.items():
        print(f"missing: {name}: {reason.splitlines()[-1] if reason else ''}")


def find_worse(samples: Mapping[str, Sample], guard: Path) -> list[str]:
    """Return the ratios that are clearly worse than those of an earlier run, given as its JSON.

    Figures that either run lacks are not compared. Raises OSError or ValueError for any other file.
    """
    figures: dict[str, list[float]] = json.loads(guard.read_text())["figures"]
    earlier = {name: Sample(tuple(values)) for name, values in figures.items()}
    worse = []
    for target in TARGETS:
        needed = {target.figure} | ({target.base} if isinstance(target.base, str) else set())
        if not needed <= samples.keys() & earlier.keys():
            continue
        now, then = target.quotient(samples), target.quotient(earlier)
        loss = then / now if target.at_least else now / then
        if loss > 1 + target.tolerance:
            worse.append(f"{target.title}: {now:.2f}, was {then:.2f}")
    return worse


def write_chart(samples: Mapping[str, Sample], path: Path) -> None:
    """Draw the rates as bars, medians with their spread."""
    rates = [(n, s) for n, s in samples.items() if n.split("/")[0] in _CHARTED and s.values]
    most = max((max(sample.values) for _, sample in rates), default=1.0)
    scale, lines = 480 / most, []
    for row, (name, sample) in enumerate(rates):
        y, low, high = 20 + row * 24, min(sample.values) * scale, max(sample.values) * scale
        colour = "#2563eb" if "convotic" in name else "#94a3b8"
        bar = 'height="16"'
        lines += [
            f'<text x="270" y="{y + 12}" text-anchor="end">{escape(name)}</text>',
            f'<rect x="280" y="{y}" width="{sample.median * scale:.1f}" {bar} fill="{colour}"/>',
            f'<path d="M{280 + low:.1f} {y + 8}H{280 + high:.1f}" stroke="#111"/>',
            f'<text x="{288 + high:.1f}" y="{y + 12}">{sample.median:,.0f}/s</text>',
        ]
    height = 40 + 24 * len(rates)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="860" height="{height}" '
    style = 'font-family="sans-serif" font-size="12">'
    path.write_text("\n".join([head + style, *lines, "</svg>"]) + "\n")


_CHARTED = {"throughput", "orders", "google", "pools"}
