"""What `run.py` measures: the installed product through its public interface."""
