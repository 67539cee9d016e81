"""Values that cannot work are refused by helm, with the value and a remedy."""

from __future__ import annotations

import pytest

from tests.chart.rendered import NEEDS_HELM, VALUES, template

pytestmark = NEEDS_HELM
POOL = "pools.cpu.image.repository=x,pools.cpu.image.tag=a"


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ("", "tls.existingSecret: name a Secret with tls.crt and tls.key. The broker refuses to serve other machines"),
        ("tls.existingSecret=a", "tokens.existingSecret: name a Secret with the file of tokens"),
        ("insecure=true,tokens.existingSecret=a", "tls.existingSecret: workers send no token in clear text"),
        ("insecure=true,broker.replicas=2", "broker.replicas: a SQLite store serves one broker"),
        ("insecure=true,store.kind=postgresql", "store.postgresql.existingSecret: name a Secret with the URL"),
        (
            "insecure=true,store.kind=postgresql,store.postgresql.existingSecret=a",
            "values.url: with PostgreSQL the brokers need a place for large values",
        ),
        ("insecure=true,values.url=file:///values", "values.existingClaim: name a PersistentVolumeClaim"),
        ("insecure=true,values.existingClaim=a", "values.existingClaim: it is mounted at the folder"),
        (f"insecure=true,{POOL}", "signing.existingSecret: name a Secret with the signing keys"),
        ("insecure=true,dashboard.enabled=true", "dashboard.allowedHosts: name the hosts"),
    ],
)
def test_values_that_do_not_fit_together_are_refused_with_a_sentence(values: str, why: str) -> None:
    refused(why, "--set", values)


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ("pools.cpu.kind=job", "pools.cpu.autoscale: jobs are started by KEDA"),
        ("pools.cpu.idle=9", "pools.cpu.idle: workers of a deployment do not leave by themselves"),
        ("pools.cpu.image.tag=", "pools.cpu.image: give a tag or a digest"),
        ("pools.cpu.token.existingSecret=a", "pools.cpu.token: the broker checks no tokens"),
        (
            "tokens.existingSecret=a,tls.existingSecret=a",
            "pools.cpu.token.existingSecret: name a Secret with the token of this pool's workers",
        ),
        ("pools.cpu.autoscale.max=2,pools.cpu.replicas=1", "pools.cpu.replicas: KEDA sets the number of pods"),
        ("pools.cpu.autoscale.max=2,pools.cpu.autoscale.min=3", "pools.cpu.autoscale: min is 3 and max is 2"),
        (
            r"pools.cpu.autoscale.max=2,pools.cpu.tolerates={a\,b}",
            'pools.cpu: KEDA\'s metadata separate names with commas, and "a,b" has one',
        ),
    ],
)
def test_pools_that_cannot_work_are_refused_with_a_sentence(values: str, why: str) -> None:
    refused(why, "--set", f"insecure=true,signing.existingSecret=keys,{POOL}", "--set", values)


SECOND = "pools.old.image.repository=x,pools.old.image.tag=b"


@pytest.mark.parametrize("scaled", ["cpu", "old"])
def test_two_pools_that_the_broker_cannot_tell_apart_are_not_scaled(scaled: str) -> None:
    both = f"insecure=true,signing.existingSecret=keys,{POOL},{SECOND}"
    autoscale = f"pools.{scaled}.autoscale.max=2"
    refused("pools.cpu and pools.old: the broker cannot tell their workers apart", "--set", both, "--set", autoscale)
    queues = "pools.cpu.includeQueues={a,b},pools.old.includeQueues={b,a}"
    refused("cannot tell their workers apart", "--set", both, "--set", autoscale, "--set", queues)
    assert template("--set", both).returncode == 0
    assert template("--set", both, "--set", autoscale, "--set", "pools.cpu.tolerates={GPU}").returncode == 0
    tokens = "insecure=false,tls.existingSecret=a,tokens.existingSecret=a"
    own = "pools.cpu.token.existingSecret=new,pools.old.token.existingSecret=old"
    assert template("--set", both, "--set", autoscale, "--set", tokens, "--set", own).returncode == 0


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ("pool.cpu=1", "additional properties 'pool' not allowed"),
        ("pools.cpu.replica=1", "at '/pools/cpu': additional properties 'replica' not allowed"),
        ("pools.CPU.replicas=1", "at '/pools': additional properties 'CPU' not allowed"),
        ("pools.cpu.kind=daemonset", "at '/pools/cpu/kind': value must be one of 'deployment', 'job'"),
        ("pools.cpu.autoscale.min=1", "at '/pools/cpu/autoscale': missing property 'max'"),
        ("pools.cpu.concurrency=0", "at '/pools/cpu/concurrency': minimum: got 0, want 1"),
        ("pools.cpu.image.tag=41", "at '/pools/cpu/image/tag': got number, want string"),
        ("store.kind=mysql", "at '/store/kind': value must be one of 'sqlite', 'postgresql'"),
        ("broker.replicas=two", "at '/broker/replicas': got string, want null or integer"),
        ("values.url=bucket", "at '/values/url': 'bucket' does not match pattern"),
        ("tls.existingSecret=My Secret", "at '/tls/existingSecret': 'My Secret' does not match pattern"),
    ],
)
def test_unknown_keys_and_wrong_kinds_are_refused_by_the_schema(values: str, why: str) -> None:
    refused(why, "--values", str(VALUES / "deployment.yaml"), "--set", values)


def refused(why: str, *arguments: str) -> None:
    done = template(*arguments)
    assert done.returncode != 0
    assert why in done.stderr
    assert done.stdout == ""
