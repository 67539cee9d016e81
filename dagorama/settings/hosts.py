"""The texts that name the hosts of brokers: one host, or several that are separated by commas. Nothing is looked up."""

from re import fullmatch

from dagorama.errors import SettingsError


def checked_host(text: str | None, source: str) -> str:
    """Return a host name or address, IPv6 without brackets; raise SettingsError, which names `source`."""
    host = (text or "").strip()
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if _is_ipv6(bare) or fullmatch(r"[\w.-]+", host):
        return bare
    name, _, port = host.rpartition(":")
    if "://" in host:
        remedy = ", without a scheme such as http://"
    elif port.isdecimal() and name:
        remedy = f", and the port has its own setting: {name.strip('[]')!r} here, and {port} for the port"
    else:
        remedy = ""
    raise SettingsError(f"{source} is {text!r}: it must be the name or the address of a host{remedy}")


def checked_hosts(text: str | None, source: str) -> str:
    """Return one host, or several with commas between them; raise SettingsError, which names the invalid one."""
    texts = (text or "").split(",")
    if len(texts) == 1:
        return checked_host(text, source)
    hosts = (checked_host(each.strip(), f"host {number} of {source}") for number, each in enumerate(texts, 1))
    return ",".join(dict.fromkeys(hosts))


def split_hosts(hosts: str) -> tuple[str, ...]:
    """Return the hosts that `checked_hosts` has returned, in the order in which they are tried."""
    return tuple(hosts.split(","))


def _is_ipv6(text: str) -> bool:
    if ":" not in text:
        return False
    from ipaddress import ip_address  # a millisecond of every start with an ordinary name

    try:
        return ip_address(text).version == 6
    except ValueError:
        return False
