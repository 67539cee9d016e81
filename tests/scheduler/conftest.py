import pytest

from tests.support.driver import Heart


@pytest.fixture
def heart() -> Heart:
    return Heart()
