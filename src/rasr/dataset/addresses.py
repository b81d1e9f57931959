"""Addresses that may be asked: public ones, resolved once, and connected to as they were checked.

An address comes from a stranger's answer. What it names may be this machine, a printer, or a cloud's own services; a
name may be resolved to one address when it is checked and to another when it is asked (DNS rebinding). So the check
stands where the connection is made, behind the resolver, and the connection goes to the very address that passed.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import httpx2

Resolver = Callable[[str, int], Sequence[str]]
"""Host and port → addresses as text. Raises OSError when the host is not known."""

_NAT64 = IPv6Network("64:ff9b::/96")
_LOCAL_NAT64 = IPv6Network("64:ff9b:1::/48")
_COMPATIBLE = IPv6Network("::/96")


class AddressRefused(Exception):
    """An address that is not asked; the message says what it is."""


def check_address(address: str, *, loopback: bool = False) -> None:
    """Raise AddressRefused unless an IP address is public; ``loopback`` allows this machine's own.

    IPv4 addresses inside IPv6 ones (mapped, compatible, NAT64, 6to4) are judged by what they lead to.
    """
    ip = ip_address(address.partition("%")[0])
    if loopback and ip.is_loopback:
        return
    inner = _inner(ip)
    hidden = isinstance(ip, IPv6Address) and inner is not None and ip.sixtofour is None
    for one in [inner] if hidden else [ip, inner]:
        if one is not None and (kind := _kind(one)):
            raise AddressRefused(f"{address} is a {kind} address")


def _kind(ip: IPv4Address | IPv6Address) -> str:
    """Say which kind of address that is not public it is; empty for a public one."""
    kinds = {
        "loopback": ip.is_loopback,
        "link-local": ip.is_link_local,
        "multicast": ip.is_multicast,
        "unspecified": ip.is_unspecified,
        "private or reserved": not ip.is_global or ip.is_reserved or (ip.version == 6 and ip in _LOCAL_NAT64),
    }
    if isinstance(ip, IPv6Address) and ip.is_site_local:
        return "private or reserved"
    return next((kind for kind, found in kinds.items() if found), "")


def _inner(ip: IPv4Address | IPv6Address) -> IPv4Address | None:
    """The IPv4 address that an IPv6 one leads to, if any."""
    if isinstance(ip, IPv4Address):
        return None
    if ip in _NAT64 or (ip in _COMPATIBLE and int(ip) > 1):
        return IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour


def host_of(url: str) -> str:
    """Host of an http(s) address. Raises ValueError for anything else."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
        raise ValueError("it is not an http(s) address")
    parts.hostname.encode("idna" if not parts.hostname.isascii() else "ascii")
    return parts.hostname


def check_proxied(host: str, *, loopback: bool = False) -> None:
    """Raise AddressRefused for a host that only a proxy resolves, where its name alone tells."""
    if (host == "localhost" or host.endswith(".localhost")) and not loopback:
        raise AddressRefused(f"{host} is this machine")
    try:
        ip_address(host)
    except ValueError:
        return
    check_address(host, loopback=loopback)


def resolve(host: str, port: int) -> list[str]:
    """Ask the system for a host's addresses."""
    return list(dict.fromkeys(str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))


def checked_transport(limits: httpx2.Limits, resolver: Resolver, *, loopback: bool) -> httpx2.HTTPTransport:
    """Connections that are made to checked addresses only. Sending raises AddressRefused where one fails."""
    import httpcore2
    import httpx2

    class Backend(httpcore2.SyncBackend):
        def connect_tcp(
            self,
            host: str,
            port: int,
            timeout: float | None = None,
            local_address: str | None = None,
            socket_options: Iterable[Any] | None = None,
        ) -> httpcore2.NetworkStream:
            try:
                addresses = resolver(host, port)
            except (OSError, UnicodeError) as error:
                raise httpcore2.ConnectError(str(error)) from error
            for address in addresses:  # all of them: one that is not public says enough about the others
                check_address(address, loopback=loopback)
            failure: Exception = httpcore2.ConnectError(f"{host} has no address")
            for address in addresses:
                try:
                    return super().connect_tcp(address, port, timeout, local_address, socket_options)
                except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                    failure = error
            raise failure

    transport = httpx2.HTTPTransport(limits=limits)
    if not isinstance(transport._pool, httpcore2.ConnectionPool):
        raise TypeError("httpx2 keeps its connections elsewhere: they cannot be checked")  # never unchecked instead
    transport._pool = httpcore2.ConnectionPool(
        ssl_context=httpx2.create_ssl_context(),
        max_connections=limits.max_connections,
        max_keepalive_connections=limits.max_keepalive_connections,
        keepalive_expiry=limits.keepalive_expiry,
        network_backend=Backend(),
    )
    return transport
