from tests.support.broker_fixtures import served, store
from tests.support.client_fixtures import broker

__all__ = ["broker", "served", "store"]
