"""Child tables: their rows follow from the lists in the rows of the dataset, whatever the order of days."""

import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.histories import EXAMPLES, check, limit_examples, run_step, steps
from tests.support.store import Store


@pytest.mark.sweep
@pytest.mark.timeout(120 + EXAMPLES)
def test_child_tables_equal_the_model_after_any_history(new_database: Callable[[], str]) -> None:
    """G1 to G4 for child rows: after every step, and for the same days in another order."""

    @given(st.lists(steps, min_size=4, max_size=10), st.randoms(use_true_random=False))
    @limit_examples(new_database)
    def hold(steps: list[Any], shuffle: random.Random) -> None:
        store, days, forgotten = Store(new_database(), "carts"), {}, set()
        for step in steps:
            run_step(step, store, days, forgotten)
        fresh = Store(new_database(), "carts")
        order = list(days.values())
        shuffle.shuffle(order)
        for n, day in enumerate(order):
            fresh.load(day)
            for key in forgotten if n == 0 else ():
                fresh.forget(key)
        if days:
            check(fresh, days, forgotten)
            assert fresh.dump() == store.dump()

    hold()
