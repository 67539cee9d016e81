"""The site of the documentation: `make docs` builds it from `docs`, the samples and the docstrings."""
