"""Answers by HTTP: one POST to the URL that the sender of an input named.

The URL is whoever's: private addresses are refused unless allowed, the name is resolved once and the connection goes to
the very address that was checked (a name that changes its mind finds no way in), redirects are not followed, proxies
and credentials of this machine are not used, and everything has a deadline. The body is signed with a key of its own.
"""

from __future__ import annotations

import email.utils
import hmac
import http.client
import io
import ipaddress
import os
import socket
import ssl
import time
from hashlib import sha256
from typing import Any
from urllib.parse import SplitResult, urlsplit

import gevent

from app.errors import BadRequest, StartRefused
from app.settings import Settings

URL_MAX, ANSWER_BYTES, READ_BYTES = 2000, 64 << 10, 512 << 10  # READ_BYTES: of all that a sink says, heads included
CONNECT_S, WHOLE_S = 5.0, 15.0
LATER = (408, 425, 429)  # answers below 500 after which another attempt may do better
NAT64 = ipaddress.ip_network("64:ff9b::/96")

Result = tuple[str, str, float | None, str | None]


class HttpSender:
    """Sends with POST, `Idempotency-Key` and `Argus-Signature: t=<seconds>,v1=<HMAC-SHA256 of "<t>.<body>">`."""

    def __init__(self, settings: Settings) -> None:
        self._key = signing_key(settings)
        self._private = settings.http_private_hosts

    def check(self, route: dict[str, Any]) -> None:
        """Whether the route's form is good, and its host one that may be reached. Names are looked up when it is sent.
        Raises BadRequest."""
        if set(route) - {"type", "url"} or not isinstance(route.get("url"), str):
            raise BadRequest('an http replyRoute is {"type": "http", "url"}')
        parts = split(route["url"])
        address = _address(parts.hostname or "")
        if address is not None and not self._may_reach(parts.hostname or "", address):
            raise BadRequest(private(parts.hostname or ""))

    def send(self, route: dict[str, Any], payload: str, key: str) -> Result:
        """One attempt."""
        began = False
        try:
            with gevent.Timeout(WHOLE_S):
                parts = split(route["url"])
                connection = self._connect(parts)
                try:
                    body, now = payload.encode(), int(time.time())
                    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
                    began = True
                    connection.request("POST", target, body, self._headers(body, now, key))
                    response = connection.getresponse()
                    said = response.read(ANSWER_BYTES)[:200].decode("utf-8", "replace")
                    return result_of(response.status, response.headers.get("Retry-After"), said, time.time())
                finally:
                    connection.close()
        except BadRequest as error:
            return "refused", error.text, None, None
        except gevent.Timeout:
            return ("unknown" if began else "failed"), f"no answer within {WHOLE_S:g} s", None, None
        except (OSError, http.client.HTTPException, ValueError) as error:
            kind = "unknown" if began else "failed"
            return kind, f"{type(error).__name__}: {error}"[:300], None, None

    def _headers(self, body: bytes, now: int, key: str) -> dict[str, str]:
        return {
            "Content-Type": "application/json; charset=utf-8",
            "User-Agent": "argus",
            "Idempotency-Key": key,
            "Argus-Signature": f"t={now},v1={sign(self._key, now, body)}",
            "Connection": "close",
        }

    def _connect(self, parts: SplitResult) -> http.client.HTTPConnection:
        """A connection to an address that was checked. Raises BadRequest, OSError."""
        host, secure = parts.hostname or "", parts.scheme == "https"
        port = parts.port or (443 if secure else 80)
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        bad = [info for info in found if not self._may_reach(host, ipaddress.ip_address(info[4][0].split("%")[0]))]
        if bad:
            raise BadRequest(private(host))
        connection = http.client.HTTPConnection(host, port, timeout=WHOLE_S)
        sock = _dial(found)
        try:
            if secure:
                sock = ssl.create_default_context().wrap_socket(sock, server_hostname=host)
        except BaseException:
            sock.close()
            raise
        sock.settimeout(WHOLE_S)
        connection.sock = _Bounded(sock)  # type: ignore[assignment]  # it has all that http.client asks for
        return connection

    def _may_reach(self, host: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
        return is_public(address) or allowed(host, address, self._private)


class _Bounded:
    """A socket of which at most READ_BYTES are read, with room for others between: a sink that says without an end
    "100 Continue" would hold up the whole gateway, because http.client reads on and what is there is read at once."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.sendall, self.close = sock.sendall, sock.close

    def makefile(self, mode: str) -> io.BufferedReader:
        """What http.client reads from."""
        return io.BufferedReader(_Reader(self._sock))


class _Reader(io.RawIOBase):
    def __init__(self, sock: socket.socket) -> None:
        self._raw, self._left = sock.makefile("rb", buffering=0), READ_BYTES

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        gevent.sleep(0)
        count = self._raw.readinto(buffer)  # type: ignore[attr-defined]
        self._left -= count or 0
        if self._left < 0:
            raise http.client.HTTPException(f"the answer is larger than {READ_BYTES >> 10} KiB")
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


def _dial(found: list[Any]) -> socket.socket:
    error: OSError = OSError("the name has no address")
    for family, kind, number, _, where in found[:4]:
        sock = socket.socket(family, kind, number)
        sock.settimeout(CONNECT_S)
        try:
            sock.connect(where)
            return sock
        except OSError as failed:
            sock.close()
            error = failed
    raise error


def split(url: str) -> SplitResult:
    """The parts of a URL that may be posted to. Raises BadRequest."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good or len(url) > URL_MAX or not url.isascii() or not url.isprintable() or " " in url:
        raise BadRequest(f"url must be an http or https URL of at most {URL_MAX} ASCII characters")
    if parts.username is not None or parts.password is not None:
        raise BadRequest("url must not carry a name or password; check the Argus-Signature header instead")
    return parts


def private(host: str) -> str:
    """What is said of a host that may not be reached."""
    return f"{host[:100]} is a private address; add it to ARGUS_HTTP_PRIVATE_HOSTS if answers may go there"


def is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether an address is one of the public network, also one that is wrapped into IPv6."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if inner is None and address in NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
        if address.is_site_local:
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def allowed(host: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address, private: tuple[str, ...]) -> bool:
    """Whether the operator named this host, or a network that has this address."""
    for each in private:
        if each == "*" or each.lower() == host.lower():
            return True
        try:
            if address in ipaddress.ip_network(each, strict=False):
                return True
        except (ValueError, TypeError):
            continue
    return False


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def result_of(status: int, retry_after: str | None, said: str, now: float) -> Result:
    """What an answer means: 2xx arrived; 5xx, 429 and the like may do better later; everything else never will."""
    if 200 <= status < 300:
        return "sent", f"HTTP {status}", None, None
    detail = f"HTTP {status}: {said}"
    if status >= 500 or status in LATER:
        return "failed", detail, _seconds(retry_after, now), None
    if 300 <= status < 400:
        detail = f"HTTP {status}: redirects are not followed"
    return "refused", detail, None, None


def _seconds(retry_after: str | None, now: float) -> float | None:
    """A Retry-After header in seconds: a number, or a date."""
    if not retry_after:
        return None
    if retry_after.strip().isdecimal():
        return float(retry_after.strip()[:9])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(retry_after).timestamp() - now)
    except (ValueError, TypeError, OverflowError):
        return None


def sign(key: bytes, now: int, body: bytes) -> str:
    """The signature of a body sent at this second."""
    return hmac.new(key, b"%d.%s" % (now, body), sha256).hexdigest()


def signing_key(settings: Settings) -> bytes:
    """ARGUS_HTTP_SIGNING_KEY, or a random one made once and kept 0600. Never a token."""
    if settings.http_signing_key:
        return settings.http_signing_key.encode()
    path = settings.gateway_dir / "http-signing-key"
    try:
        if not path.exists():
            fresh = path.with_name(path.name + ".new")
            fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with open(fd, "w") as file:
                file.write(os.urandom(32).hex() + "\n")
            os.replace(fresh, path)
        path.chmod(0o600)
        key = path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StartRefused(f"The signing key {path} can't be used: {error}.") from None
    if len(key) < 16:
        raise StartRefused(f"The signing key in {path} is too short; remove the file and a new one is made.")
    return key.encode()
