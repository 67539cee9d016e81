"""Histograms by powers of two."""

from dagorama_monitoring.histogram import BIT_LENGTHS, Distribution, Histogram, buckets, summed


def test_a_number_counts_below_the_next_power_of_two() -> None:
    histogram = Histogram()
    for number in (0, 1, 2, 3, 4, 7, 8):
        histogram.add(number)
    copy = histogram.copy()
    assert list(copy.counts[:5]) == [1, 1, 2, 2, 1]
    assert copy.total == 25


def test_a_number_of_any_size_is_counted() -> None:
    histogram = Histogram()
    histogram.add(1 << 200)
    assert histogram.copy().counts[-1] == 1


def test_a_copy_stays_as_it_is() -> None:
    histogram = Histogram()
    copy = histogram.copy()
    histogram.add(1)
    assert sum(copy.counts) == copy.total == 0


def test_buckets_are_cumulative_and_the_last_has_all() -> None:
    counts = [0] * BIT_LENGTHS
    counts[3], counts[10], counts[40] = 1, 2, 3
    found = buckets(Distribution(counts, 0), range(7, 11), 1e-6)
    assert found == [("0.000128", 1), ("0.000256", 1), ("0.000512", 1), ("0.001024", 3), ("+Inf", 6)]


def test_histograms_add_up() -> None:
    one, two = Histogram(), Histogram()
    one.add(1)
    two.add(1)
    two.add(2)
    both = summed([one.copy(), two.copy()])
    assert (list(both.counts[:3]), both.total) == ([0, 2, 1], 4)
