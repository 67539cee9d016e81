from tests.support.broker_fixtures import postgres_url, served, store
from tests.support.client_fixtures import broker

__all__ = ["broker", "postgres_url", "served", "store"]
