import pytest

from tests.support.driver import SchedulerDriver


@pytest.fixture
def driver() -> SchedulerDriver:
    return SchedulerDriver()
