"""The workloads of `run.py`: the installed product through its public interface."""
