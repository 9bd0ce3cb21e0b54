"""The garbage collector of a worker."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from convotic_celery.runtime.pool.gc_tuning import tune_gc


@pytest.fixture(autouse=True)
def _restored_collector() -> Iterator[None]:
    before = gc.get_threshold()
    gc.unfreeze()  # what others have frozen, and what is counted less when it is freed
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


def test_collects_less_often_and_leaves_out_what_is_loaded() -> None:
    """The default thresholds are raised, and what is loaded is frozen."""
    gc.set_threshold(700, 10, 10)
    tune_gc()
    assert gc.get_threshold()[0] > 700
    assert gc.get_freeze_count() > 0


def test_leaves_chosen_thresholds_alone() -> None:
    """Thresholds that were set before are kept, and nothing is frozen."""
    gc.set_threshold(1234, 5, 5)
    frozen = gc.get_freeze_count()
    tune_gc()
    assert gc.get_threshold() == (1234, 5, 5)
    assert gc.get_freeze_count() == frozen
