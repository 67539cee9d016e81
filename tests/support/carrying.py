"""Arguments and results that only their client and its workers may read; run as a program, it is such a client."""

from dagorama import DAGDefinition, dagorama, resolve

SECRET = "marked-argument"


class Carrying(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self, argument: str) -> str:
        return self.join(self.repeat(argument), kept=argument)

    @dagorama().syncfn
    def repeat(self, argument: str) -> list[str]:
        return [argument] * 3

    @dagorama().syncfn
    def join(self, parts: list[str], kept: str) -> str:
        return kept.join(parts)


class Unservable(DAGDefinition):
    @dagorama(taint_name="NOBODY").syncfn
    def entrypoint(self, argument: str) -> str:
        return argument


if __name__ == "__main__":
    # Under the name by which workers import it, not as __main__.
    from tests.support import carrying

    instance, promise = carrying.Carrying()(SECRET)
    assert resolve(instance, promise, timeout=30) == SECRET * 5
    # This one stays, so that everyone who looks at the broker sees it.
    carrying.Unservable()(SECRET)
