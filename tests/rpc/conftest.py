from tests.support.broker_fixtures import served, store

__all__ = ["served", "store"]
