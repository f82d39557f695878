"""What reading and cleaning may not cost: passes and collections are counted, as no clock is to be trusted here."""

import gc
import json

from pipeline.transform import transform
from pipeline.users import User, clean


def test_no_record_that_is_cleaned_is_looked_through_for_cycles():
    """The collector would take as long as the decoding; afterwards it is as it was."""
    lines = [json.dumps({"id": key, "address": {"city": "Bern"}}).encode() for key in range(1, 20_000)]
    collections = []
    gc.callbacks.append(lambda phase, info: collections.append(phase))
    try:
        transform(lines, User, clean, ["user_id"])
    finally:
        gc.callbacks.pop()
    assert (collections, gc.isenabled()) == ([], True)
