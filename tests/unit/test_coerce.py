"""Dates whose year comes last."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from flows import coerce


@given(
    st.lists(st.datetimes(datetime(1971, 1, 1), datetime(2098, 12, 31)), min_size=1, max_size=20),
    st.sampled_from(["dmy", "mdy"]),
    st.sampled_from("-/."),
)
def test_dates_with_the_year_last_are_read_in_the_order_that_is_set(
    moments: list[datetime], order: Literal["dmy", "mdy"], mark: str
) -> None:
    moments = [moment.replace(second=0, microsecond=0) for moment in moments]
    form = f"%d{mark}%m{mark}%Y %H:%M" if order == "dmy" else f"%m{mark}%d{mark}%Y %H:%M"
    cells = [moment.strftime(form) for moment in moments]
    read = coerce.times(pa.array(cells), "UTC", order)
    assert read.values.astype("datetime64[us]").tolist() == moments and not len(read.bad)
    # What the cells prove is never the other order.
    assert coerce.proven_order(cells) in {order, None}


def test_a_day_that_there_is_not_is_named_as_it_was_written() -> None:
    read = coerce.times(pa.array(["31/02/2026", "2026-04-03", "03/04/26"]), "UTC", "dmy")
    assert read.bad.tolist() == [0, 2]
    assert [reason.split("'")[1] for reason in read.reasons] == ["31/02/2026", "03/04/26"]
