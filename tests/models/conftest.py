from tests.support.client_fixtures import broker

__all__ = ["broker"]
