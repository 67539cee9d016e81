from tests.support.broker_fixtures import postgres_url, served, store

__all__ = ["postgres_url", "served", "store"]
