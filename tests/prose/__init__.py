"""Find English that is hard to read in docstrings, comments, messages and documents."""
