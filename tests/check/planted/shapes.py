"""A file as a beginner writes it: everything in one place."""

from dagorama import DAGDefinition, dagorama


class Shapes(DAGDefinition):
    @dagorama
    def entrypoint(self, count: int) -> str:
        areas = [self.measure(number) for number in range(count)]
        print(f"measured {len(areas)} shapes")
        return f"{sum(areas)} in all"  #: DAG005

    @dagorama
    def measure(self, number: int) -> int:
        return number * number


class Retried(DAGDefinition):
    @dagorama(priority=3).syncfn
    def entrypoint(self, count: int) -> int:
        best = None
        for number in range(count):
            score = self.score(number)
            if best is None or score > best:  #: DAG002
                best = score
        return best

    @dagorama(max_concurrency=2).syncfn
    def score(self, number: int) -> int:
        return number


class Recursive(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self, n: int) -> int:
        if n < 2:
            return n
        return self.entrypoint(n - 1) + self.entrypoint(n - 2)  #: DAG002


class Mixed(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self, count: int) -> dict[str, int]:
        result = {}
        result["one"] = self.one(count)
        result["two"] = result["one"] * 2  #: DAG002
        return result

    @dagorama().syncfn
    def one(self, count: int) -> int:
        return count
