"""Addresses at which no model is: link-local ones, and those where a cloud's machines get keys.

Whoever can choose a `base_url`, or what its name resolves to, could have a worker ask its machine's
metadata service and send it prompts. Loopback and private networks are where own servers are.
"""

import ipaddress
import re
import socket
from typing import Final

_NETWORKS: Final = tuple(
    ipaddress.ip_network(each)
    for each in (
        "169.254.0.0/16",
        "fe80::/10",
        "100.100.100.200",  # Alibaba Cloud
        "fd00:ec2::254",  # EC2
        "fd20:ce::254",  # Google Cloud
    )
)
_NAMES: Final = frozenset({"metadata.google.internal", "metadata.goog"})
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")


def is_link_local(host: str) -> bool:
    """Whether `host` is such an address, or a name that only ever stands for one.

    Other names are judged by the addresses that they resolve to.
    """
    name = host.strip("[]").rstrip(".").lower()
    if name in _NAMES:
        return True
    address = _address(name)
    if address is None:
        return False
    return any(each in network for each in _meant(address) for network in _NETWORKS)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the address that `text` is, or None; numbers such as 2852039166 are addresses, too."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        pass
    if not re.fullmatch(r"[0-9a-fx.]+", text):
        return None
    try:
        return ipaddress.IPv4Address(socket.inet_aton(text))
    except OSError:
        return None


def _meant(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """Return an address, and the IPv4 address that an IPv6 one leads to."""
    if isinstance(address, ipaddress.IPv4Address):
        return [address]
    inner = [address.ipv4_mapped, address.sixtofour]
    if address in _NAT64:
        inner.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return [address, *(each for each in inner if each is not None)]
