"""Retries: what they say on the original's wire and on ours, and what they refuse."""

import math
import pickle
import subprocess
import sys
from typing import Any

import pytest

from dagorama.api.api_pb2 import RetryMessage
from dagorama.api.broker_pb2 import Retry
from dagorama.errors import RetryLater
from dagorama.retry import ExponentialRetry, RetryConfiguration, StaticRetry, retry_decision


def pauses(policy: Retry, count: int) -> list[float]:
    """The pauses that a reader of our message makes of it."""
    growing = [policy.interval * (policy.base or 1) ** run for run in range(count)]
    return [min(pause, policy.max_interval or math.inf) for pause in growing]


@pytest.mark.parametrize(
    ("retry", "message"),
    [
        (StaticRetry(3, 5), RetryMessage(maxAttempts=3, staticInterval=5)),
        (StaticRetry(max_attempts=1, interval=0), RetryMessage(maxAttempts=1, staticInterval=1)),
        (StaticRetry(2, 0.5), RetryMessage(maxAttempts=2, staticInterval=1)),
        (StaticRetry(2, 1.2), RetryMessage(maxAttempts=2, staticInterval=2)),
        (ExponentialRetry(4), RetryMessage(maxAttempts=4, exponentialBase=2)),
        (ExponentialRetry(4, base_interval=1.5), RetryMessage(maxAttempts=4, exponentialBase=2)),
    ],
)
def test_the_originals_message_has_whole_seconds_from_1_up(retry: RetryConfiguration, message: RetryMessage) -> None:
    assert retry.as_message() == message


@pytest.mark.parametrize(
    ("retry", "expected"),
    [
        (StaticRetry(9, 0), [0, 0, 0]),
        (StaticRetry(9, 0.5), [0.5, 0.5, 0.5]),
        (ExponentialRetry(9), [2, 4, 8]),
        (ExponentialRetry(9, 1), [1, 1, 1]),
        (ExponentialRetry(9, 1.5), [1.5, 2.25, 3.375]),
        (ExponentialRetry(9, 0), [0, 0, 0]),
        (ExponentialRetry(9, 3, max_interval=10), [3, 9, 10]),
    ],
)
def test_our_own_message_has_the_pauses_as_written(retry: RetryConfiguration, expected: list[float]) -> None:
    assert pauses(retry.as_policy(), 3) == expected
    assert retry.as_policy().max_attempts == 9


@pytest.mark.parametrize("retry", [StaticRetry(2, 1, jitter=0.25), ExponentialRetry(2, jitter=0.25)])
def test_jitter_is_carried_on_our_wire(retry: RetryConfiguration) -> None:
    assert retry.as_policy().jitter == 0.25


class Own(RetryConfiguration):
    def __init__(self, message: RetryMessage) -> None:
        self.message = message

    def as_message(self) -> RetryMessage:
        return self.message


def test_a_subclass_with_as_message_alone_works_on_our_wire() -> None:
    static = Own(RetryMessage(maxAttempts=3, staticInterval=4)).as_policy()
    growing = Own(RetryMessage(maxAttempts=5, exponentialBase=3)).as_policy()
    assert (static.max_attempts, pauses(static, 3)) == (3, [4, 4, 4])
    assert (growing.max_attempts, pauses(growing, 3)) == (5, [3, 9, 27])


def test_a_retry_configuration_needs_as_message() -> None:
    with pytest.raises(TypeError, match="as_message"):
        RetryConfiguration()  # type: ignore[abstract]  # that is what is tested


@pytest.mark.parametrize("attempts", [0, -1, 1.5, True, "3", None, 2**31])
def test_attempts_that_count_no_runs_are_refused(attempts: Any) -> None:
    with pytest.raises(ValueError, match="max_attempts is"):
        StaticRetry(attempts, 1)
    with pytest.raises(ValueError, match="max_attempts is"):
        ExponentialRetry(attempts)


@pytest.mark.parametrize("seconds", [-1, -0.1, math.nan, math.inf, 2**31, "1", None, True])
def test_seconds_that_are_none_are_refused_by_name(seconds: Any) -> None:
    with pytest.raises(ValueError, match="interval is"):
        StaticRetry(2, seconds)
    with pytest.raises(ValueError, match="base_interval is"):
        ExponentialRetry(2, seconds)
    with pytest.raises(ValueError, match="jitter is"):
        StaticRetry(2, 1, jitter=seconds)
    with pytest.raises(ValueError, match="jitter is"):
        ExponentialRetry(2, jitter=seconds)


@pytest.mark.parametrize("seconds", [-1, 0, math.inf])
def test_a_cap_has_to_leave_a_pause(seconds: float) -> None:
    with pytest.raises(ValueError, match="max_interval is"):
        ExponentialRetry(2, max_interval=seconds)


@pytest.mark.parametrize("retry", [StaticRetry(3, 0.5), ExponentialRetry(3, 2, max_interval=9)])
def test_retries_are_values(retry: RetryConfiguration) -> None:
    again = pickle.loads(pickle.dumps(retry))
    assert again == retry
    assert hash(again) == hash(retry)


# --- which failures are worth another run


BOTH = pytest.mark.parametrize("kind", [StaticRetry, ExponentialRetry])


def policy(kind: Any, **options: Any) -> RetryConfiguration:
    retry: RetryConfiguration = kind(3, 1, **options)
    return retry


@BOTH
def test_every_failure_is_retried_by_default(kind: Any) -> None:
    assert not policy(kind).is_final(ValueError())
    assert not policy(kind).is_final(SystemExit())


@BOTH
def test_with_retry_on_only_those_and_their_subclasses_are(kind: Any) -> None:
    retry = policy(kind, retry_on=(OSError, KeyError))
    assert not retry.is_final(FileNotFoundError())
    assert not retry.is_final(KeyError())
    assert retry.is_final(ValueError())


@BOTH
def test_give_up_on_ends_it_also_where_retry_on_has_it(kind: Any) -> None:
    retry = policy(kind, retry_on=(OSError,), give_up_on=(FileNotFoundError,))
    assert retry.is_final(FileNotFoundError())
    assert not retry.is_final(ConnectionError())


@BOTH
def test_a_node_that_asks_to_run_later_is_retried_regardless_of_the_types(kind: Any) -> None:
    class Quota(RetryLater): ...

    for retry in (policy(kind, retry_on=(OSError,)), policy(kind, give_up_on=(Quota,))):
        assert retry_decision(retry, Quota(0.5)) == (False, 0.5)
    assert retry_decision(None, Quota(0.5)) == (False, 0.5)


@BOTH
def test_the_verdict_is_the_policys(kind: Any) -> None:
    retry = policy(kind, give_up_on=(ValueError,))
    assert retry_decision(retry, ValueError()) == (True, None)
    assert retry_decision(retry, OSError()) == (False, None)
    assert retry_decision(None, ValueError()) == (False, None)


def test_a_policy_of_the_users_own_decides_and_may_fail() -> None:
    class Deciding(Own):
        def is_final(self, exception: BaseException) -> bool:
            return bool(exception.args[0] == "hopeless")

    retry = Deciding(RetryMessage(maxAttempts=3))
    assert retry_decision(retry, ValueError("hopeless")) == (True, None)
    assert retry_decision(retry, ValueError("busy")) == (False, None)
    assert retry_decision(retry, ValueError()) == (False, None)


@BOTH
@pytest.mark.parametrize("types", [ValueError, [ValueError], ("ValueError",), (ValueError(),), (int,), "ValueError"])
@pytest.mark.parametrize("option", ["retry_on", "give_up_on"])
def test_what_is_no_tuple_of_exception_types_is_refused(kind: Any, types: object, option: str) -> None:
    with pytest.raises(ValueError, match=rf"{option} is .*a tuple of exception types, such as \(OSError,\)"):
        policy(kind, **{option: types})


@BOTH
def test_nothing_to_retry_on_is_refused(kind: Any) -> None:
    with pytest.raises(ValueError, match="retry_on is empty: nothing would be retried"):
        policy(kind, retry_on=())


@BOTH
def test_with_types_it_still_is_a_value_and_says_the_same_on_the_wires(kind: Any) -> None:
    retry = policy(kind, retry_on=(OSError,), give_up_on=(FileNotFoundError,))
    again = pickle.loads(pickle.dumps(retry))
    assert (again, hash(again)) == (retry, hash(retry))
    assert (again.as_policy(), again.as_message()) == (policy(kind).as_policy(), policy(kind).as_message())


def test_importing_loads_no_protobuf() -> None:
    script = "import sys, dagorama.retry; print('google.protobuf' in sys.modules, 'grpc' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", script]).split() == [b"False", b"False"]
