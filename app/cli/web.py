"""./argus web: the page on a port of its own. Every connection is passed on to a gateway, which serves page and API."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import ssl
import sys
from argparse import Namespace
from urllib.parse import urlsplit

from app import settings
from app.errors import StartRefused

PORT = 3000
AT_ONCE = 2000
CONNECT_S = 10.0
BLOCK = 65536
NAMES_OF_THIS_CONTAINER = ("127.0.0.1", "localhost", "::1")  # meant by a browser, not by a container


def run(args: Namespace) -> int:
    """Serves until it is ended by a signal."""
    current = settings.load()
    url = settings.child_variable("NEXT_PUBLIC_ARGUS_WS_URL") or f"ws://gateway:{current.port}/ws"
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(*target(url)))
    return 0


def target(url: str) -> tuple[str, int, bool]:
    """Host, port and whether TLS is spoken there, of a gateway's WebSocket address. Raises StartRefused."""
    try:
        parts = urlsplit(url.strip().strip("'\""))
        host, port, secure = parts.hostname, parts.port, parts.scheme in ("wss", "https")
    except ValueError:
        host, port, secure = None, None, False
    if not host or parts.scheme not in ("ws", "wss", "http", "https"):
        raise StartRefused(f"NEXT_PUBLIC_ARGUS_WS_URL: {url!r} is no address like ws://gateway:8080/ws.")
    return "gateway" if host in NAMES_OF_THIS_CONTAINER else host, port or (443 if secure else 80), secure


async def _serve(host: str, port: int, secure: bool) -> None:
    context = ssl.create_default_context() if secure else None
    room = asyncio.Semaphore(AT_ONCE)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not room.locked():
            async with room:
                await _pass_on(reader, writer, host, port, context)
        else:
            writer.close()

    server = await asyncio.start_server(serve, None, PORT)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, lambda: sys.exit(0))
    print(f"argus: port {PORT} leads to {host}:{port}", flush=True)
    async with server:
        await server.serve_forever()


async def _pass_on(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, port: int, context: ssl.SSLContext | None
) -> None:
    try:
        opening = asyncio.open_connection(host, port, ssl=context)
        there = await asyncio.wait_for(opening, CONNECT_S)
    except (OSError, TimeoutError):
        text = f"No gateway answers at {host}:{port}; see docker compose ps.\n".encode()
        head = (
            b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
        )
        with contextlib.suppress(OSError):
            writer.write(head % len(text) + text)
            await writer.drain()
        writer.close()
        return
    await asyncio.gather(_pump(reader, there[1]), _pump(there[0], writer))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One direction. The end of either side ends both: HTTP has no use for half of a connection."""
    try:
        while block := await reader.read(BLOCK):
            writer.write(block)
            await writer.drain()  # holds back who sends faster than the other side reads
    except OSError:
        pass
    finally:
        writer.close()
