"""Compare dagorama with other systems: the same workloads on each, in turns, and ratios. Run it with `compare.py`."""
