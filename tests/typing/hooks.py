"""A failure hook is a method that takes a Failure and nothing else."""

from uuid import UUID

from dagorama import DAGDefinition, Failure, StaticRetry, dagorama, on_failure


class Shapes(DAGDefinition):
    @dagorama
    def entrypoint(self, number: int) -> int:
        return number

    @on_failure(retry=StaticRetry(5, interval=10), queue_name="mail", taint_name="MAIL", timeout=5)
    def tell(self, failure: Failure) -> None:
        node: UUID | None = failure.node_id
        print(node, failure.message)


class Bare(Shapes):
    @on_failure
    def tell(self, failure: Failure) -> None:
        number: int = self.entrypoint(1)
        self.entrypoint(number)


class Async(DAGDefinition):
    @dagorama
    async def entrypoint(self) -> int:
        return 1

    @on_failure
    async def tell(self, failure: Failure) -> None: ...


class Wrong(DAGDefinition):
    def entrypoint(self) -> int:
        return 1

    @on_failure  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    def tell(self, failure: int) -> None: ...


on_failure(retries=3)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
