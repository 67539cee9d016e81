import pytest

from .driver import Heart


@pytest.fixture
def heart() -> Heart:
    return Heart()
