"""Messages of failures without the parts in which messages about the same error differ."""

from __future__ import annotations

import pytest

from dagorama.api.error_patterns import first_lines, without_details


@pytest.mark.parametrize(("message", "pattern"), [
    ("row 3 of 'file-3.csv' has 0x4e20 bytes, not -1.5e-05", "row … of … has … bytes, not …"),
    ("can't open file 'x' at 12:30:05", "can't open file … at …"),
    ("user 3f2504e0-4f89-11d3-9a0c-0305e82c3301 is gone", "user … is gone"),
    ("commit deadbeef12 is bad, facade decade defaced", "commit … is bad, facade decade defaced"),
    ("timeout after 30s on node17 (10.0.0.1:8080)", "timeout after …s on node… (…)"),
    ("it's Bob's 'file'", "it's Bob's …"),
    ('said "hi 3" twice', "said … twice"),
    ("1,500 of 2_000", "… of …"),
    ("nothing varies", "nothing varies"),
    ("", ""),
])  # fmt: skip
def test_details_are_replaced_and_words_are_kept(message: str, pattern: str) -> None:
    assert without_details([message]) == [pattern]


def test_texts_keep_their_order_and_do_not_run_into_each_other() -> None:
    assert without_details(["a 'b", "c' 1", "a 'b", "2"]) == ["a 'b", "c' …", "a 'b", "…"]
    assert without_details([]) == []


def test_only_the_first_line_counts() -> None:
    assert first_lines(["\n  one error \nits details", "", "a\x1fb"]) == ["one error", "", "a b"]
