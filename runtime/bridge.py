#!/usr/bin/env python3
"""The supervisor inside a runtime: owns one app-server's stdio and keeps it alive while gateways come and go.

    python3 bridge.py CONFIG.json

Standard library only, one file, one thread. It starts the app-server, numbers the lines it prints, keeps the newest
of them in a ring, and hands them to whoever attaches with the secret. docs/bridge.md is the protocol.

CONFIG: {"listen": "unix:/path" | "tcp:HOST:PORT", "command": [..] | "shell text", "cwd", "workspace", "templates",
"log", "secret": str | null, "ring_bytes", "ring_lines", "line_limit"}; only the first two must be there.
"""

import collections
import hmac
import json
import os
import pathlib
import selectors
import signal
import socket
import subprocess
import sys
import time

READ = 65536
FIRST_LINE_S, FIRST_LINE_BYTES, STRANGERS = 10.0, 65536, 16  # what a link may cost before it has shown the secret
PAUSE_S = 10.0  # how long a slow link may hold up the app-server
INPUT_HIGH = 1 << 20  # more than this waiting for the app-server's stdin: the link is not read
INPUT_LINE = 64 << 20  # a half line longer than this ends the link
BACKOFF_S = (0.1, 0.5, 1, 2, 5, 10, 30)
ASKED = ("asked for by the gateway", "plain link")  # ends that are nobody's fault
QUICK_S, FAILED_AFTER = 10.0, 5  # a life shorter than this is a quick death; so many in a row mean `failed`


class Ring:
    """The newest output, as blocks of whole lines. Line numbers begin at 1; blocks are never split."""

    def __init__(self, max_bytes, max_lines):
        self.max_bytes, self.max_lines = max_bytes, max_lines
        self.blocks = collections.deque()  # (number of its first line, lines in it, bytes)
        self.bytes, self.next = 0, 1

    @property
    def first(self):
        return self.blocks[0][0] if self.blocks else self.next

    def append(self, block):
        """Number the lines of `block`; returns the number of the first."""
        first, count = self.next, block.count(b"\n")
        self.blocks.append((first, count, block))
        self.bytes += len(block)
        self.next += count
        while len(self.blocks) > 1 and (
            self.bytes > self.max_bytes or self.next - self.blocks[0][0] > self.max_lines
        ):
            self.bytes -= len(self.blocks.popleft()[2])
        return first

    def after(self, number):
        """(first line, bytes) of each block, or part of one, that holds lines after `number`."""
        for first, count, block in self.blocks:
            if first + count - 1 <= number:
                continue
            at = 0
            for _ in range(max(0, number + 1 - first)):
                at = block.index(b"\n", at) + 1
            yield max(first, number + 1), block[at:]


class Splitter:
    """Cuts what the app-server prints into blocks of whole lines, none longer than the limit."""

    def __init__(self, limit):
        self.limit, self.parts, self.size = limit, [], 0

    def feed(self, chunk):
        """-> (block or None, whether a line was over the limit). An overlong line becomes an empty one."""
        end = chunk.rfind(b"\n") + 1
        if self.size and self.size + (chunk.find(b"\n") if end else len(chunk)) > self.limit:
            rest = chunk[chunk.find(b"\n") + 1 : end] if end else b""
            self.parts, self.size = [], 0
            return b"\n" + rest, True
        if not end:
            self.parts.append(chunk)
            self.size += len(chunk)
            return None, False
        self.parts.append(chunk[:end])
        block = b"".join(self.parts) if len(self.parts) > 1 else self.parts[0]
        tail = chunk[end:]
        self.parts, self.size = ([tail], len(tail)) if tail else ([], 0)
        return block, False

    def finish(self):
        """The half line that was left, ended, or None."""
        block = b"".join(self.parts) + b"\n" if self.size else None
        self.parts, self.size = [], 0
        return block


class Log:
    """The app-server's stderr and the bridge's own words, in a file that is rotated once it is large."""

    def __init__(self, path, max_bytes=1 << 20):
        self.path, self.max_bytes, self.file, self.tail = path, max_bytes, None, b""

    def write(self, data):
        self.tail = (self.tail + data)[-2000:]
        if not self.path:
            return
        try:
            if self.file is None or self.file.tell() > self.max_bytes:
                self._open()
            self.file.write(data)
        except OSError:  # a full disk must not take the agent down
            self.file = None

    def note(self, text):
        self.write(("%s bridge: %s\n" % (time.strftime("%Y-%m-%dT%H:%M:%S"), text)).encode())

    def _open(self):
        if self.file is not None:
            self.file.close()
            os.replace(self.path, self.path + ".1")
        fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.file = open(fd, "ab", buffering=0)
        self.file.seek(0, 2)


class Link:
    """One accepted connection: a stranger until its first line, then an attach link or a plain one."""

    def __init__(self, sock, number, deadline):
        self.sock, self.number, self.deadline = sock, number, deadline
        self.kind = "stranger"
        self.parts, self.held = [], 0  # the half line that has arrived
        self.output, self.offset, self.unsent, self.sent = collections.deque(), 0, 0, 0

    def lines(self, data):
        """The whole lines that `data` completes; the rest is kept."""
        end = data.rfind(b"\n") + 1
        if not end:
            self.parts.append(data)
            self.held += len(data)
            return b""
        whole = b"".join((*self.parts, data[:end]))
        self.parts, self.held = [data[end:]], len(data) - end
        return whole

    def queue(self, first, block):
        self.output.append((first, block))
        self.unsent += len(block)

    def flush(self):
        """Send what the socket takes; OSError when it is gone."""
        while self.output:
            first, block = self.output[0]
            try:
                n = self.sock.send(memoryview(block)[self.offset :] if self.offset else block)
            except (BlockingIOError, InterruptedError):
                return
            self.offset += n
            self.unsent -= n
            if self.offset == len(block):
                self.output.popleft()
                self.offset = 0
                if first:
                    self.sent = first + block.count(b"\n") - 1

    def sent_lines(self):
        """The number of the last line that was written whole to this link."""
        if self.offset and self.output[0][0]:
            first, block = self.output[0]
            return max(self.sent, first + block[: self.offset].count(b"\n") - 1)
        return self.sent


class AppServer:
    """The program whose stdio the bridge owns: one object for each life of it."""

    def __init__(self, command, cwd):
        argv = ["/bin/sh", "-c", "exec " + command] if isinstance(command, str) else command
        self.process = subprocess.Popen(
            argv, cwd=cwd, stdin=-1, stdout=-1, stderr=-1, bufsize=0, process_group=0
        )
        self.out, self.err, self.stdin = (
            p.fileno() for p in (self.process.stdout, self.process.stderr, self.process.stdin)
        )
        for fd in (self.out, self.err, self.stdin):
            os.set_blocking(fd, False)
        self.input, self.waiting = collections.deque(), 0
        self.started, self.reason = time.monotonic(), None
        self.pidfd = os.pidfd_open(self.process.pid) if hasattr(os, "pidfd_open") else None

    def write(self, data):
        self.input.append(data)
        self.waiting += len(data)

    def flush(self):
        """Write what its stdin takes; True while something is left."""
        while self.input:
            data = self.input[0]
            try:
                n = os.write(self.stdin, data)
            except BlockingIOError:
                return True
            except OSError:  # it closed its stdin; its end will be seen elsewhere
                self.input.clear()
                self.waiting = 0
                return False
            self.waiting -= n
            if n == len(data):
                self.input.popleft()
            else:
                self.input[0] = data[n:]
        return False

    def signal(self, number):
        try:
            os.killpg(self.process.pid, number)
        except (ProcessLookupError, PermissionError):
            pass

    def close(self):
        for pipe in (self.process.stdout, self.process.stderr, self.process.stdin):
            try:
                pipe.close()
            except OSError:
                pass
        if self.pidfd is not None:
            os.close(self.pidfd)


def line(message):
    """One JSON line."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def bootstrap(workspace, templates):
    """Put AGENTS.md, SOUL.md, USER.md and HEARTBEAT.md in the workspace; never over an existing file."""
    os.makedirs(workspace, exist_ok=True)
    for name, source in (("AGENTS", "AGENTS.default"), ("SOUL", "SOUL"), ("USER", "USER"), ("HEARTBEAT", "HEARTBEAT")):
        try:
            text = pathlib.Path(templates, source + ".md").read_text("utf-8")
            if text.startswith("---\n"):
                text = text.split("\n---\n", 1)[-1].lstrip("\n")
        except OSError:
            text = "# %s\n" % name
        try:
            with open(os.path.join(workspace, name + ".md"), "x", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError:
            pass


def listen(where):
    """A listening socket: `unix:/path` (mode 0600) or `tcp:HOST:PORT`."""
    scheme, _, rest = where.partition(":")
    if scheme == "unix":
        server = socket.socket(socket.AF_UNIX)
        if os.path.exists(rest):
            try:
                with socket.socket(socket.AF_UNIX) as probe:
                    probe.connect(rest)
                sys.exit("bridge: another bridge serves %s" % rest)
            except OSError:
                os.unlink(rest)
        mask = os.umask(0o177)
        server.bind(rest)
        os.umask(mask)
    else:
        host, _, port = rest.rpartition(":")
        server = socket.create_server((host, int(port)))
    server.listen(64)
    server.setblocking(False)
    return server


class Bridge:
    """The event loop: one app-server, one attached link, a few strangers at the door."""

    def __init__(self, config):
        self.config, self.secret = config, config.get("secret")
        self.cwd = config.get("cwd") or config.get("workspace") or "."
        self.ring = Ring(config.get("ring_bytes", 4 << 20), config.get("ring_lines", 20000))
        self.splitter = Splitter(config.get("line_limit", 8 << 20))
        self.log = Log(config.get("log"))
        self.selector, self.timers = selectors.DefaultSelector(), {}
        self.epoch, self.links, self.term, self.sent = os.urandom(6).hex(), 0, 0, 0
        self.life, self.quick, self.state = 0, 0, "restarting"
        self.app = self.link = None
        self.strangers, self.fed, self.gate, self.paused = set(), False, False, False

    # -- the loop

    def run(self):
        if self.config.get("workspace"):
            bootstrap(self.config["workspace"], self.config.get("templates", ""))
        server = listen(self.config["listen"])
        self._watch(server, selectors.EVENT_READ, lambda mask: self.accept(server))
        wake, wakeup = socket.socketpair()
        wake.setblocking(False), wakeup.setblocking(False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(wakeup.fileno(), warn_on_full_buffer=False)
        self._watch(wake, selectors.EVENT_READ, lambda mask: self.shutdown())
        self.start()
        while True:
            timeout = min((when for when, _ in self.timers.values()), default=None)
            for key, mask in self.selector.select(timeout and max(0, timeout - time.monotonic())):
                if self.selector.get_map().get(key.fd) is key:  # not closed by an earlier event of this round
                    key.data(mask)
            if self.timers:
                now = time.monotonic()
                for name, (when, act) in list(self.timers.items()):
                    if when <= now and self.timers.pop(name, None):
                        act()

    def _watch(self, fd, mask, act):
        """Register, change or (mask 0) forget what to wait for on `fd`; `act(mask)` is called then."""
        known = self.selector.get_map().get(fd)
        if not mask:
            if known:
                self.selector.unregister(fd)
        elif not known:
            self.selector.register(fd, mask, act)
        elif known.events != mask:
            self.selector.modify(fd, mask, act)

    def _after(self, delay, name, act):
        self.timers[name] = (time.monotonic() + delay, act)

    # -- the app-server

    def start(self):
        self.life += 1
        try:
            self.app = AppServer(self.config["command"], self.cwd)
        except (OSError, ValueError) as error:
            self.log.note("cannot start %r: %s" % (self.config["command"], error))
            return self.died(None, None, "cannot start: %s" % error)
        self.state, self.fed = "running", False
        app = self.app
        self._watch(app.out, 0 if self.paused else selectors.EVENT_READ, self.read_output)
        self._watch(app.err, selectors.EVENT_READ, self.read_errors)
        if app.pidfd is not None:
            self._watch(app.pidfd, selectors.EVENT_READ, lambda mask: self.reap())
        else:
            self._after(0.1, "reap", self.reap)
        self.publish(line({"method": "bridge/started", "params": {"life": self.life}}), own=True)
        if self.link and self.link.kind == "plain":
            self.feed(self.link, b"")

    def read_output(self, mask=0):
        try:
            chunk = os.read(self.app.out, READ)
        except BlockingIOError:
            return False
        if not chunk:  # it ended, which reap() will see, or it lives on without a voice
            self._watch(self.app.out, 0, None)
            self._after(0.5, "mute", lambda: self.restart("closed its output"))
            return False
        if self.app.reason == "line too long":
            return True
        block, cut = self.splitter.feed(chunk)
        if block:
            self.publish(block)
        if cut:
            self.restart("line too long")
        return True

    def read_errors(self, mask=0):
        try:
            chunk = os.read(self.app.err, READ)
        except BlockingIOError:
            return False
        if chunk:
            self.log.write(chunk)
        else:
            self._watch(self.app.err, 0, None)
        return bool(chunk)

    def publish(self, block, own=False):
        """Number a block, keep it, send it."""
        first, link = self.ring.append(block), self.link
        if link is None or (own and link.kind == "plain"):
            return
        idle = not link.output
        link.queue(first, block)
        if idle:
            self.write_link(link)
        if link.unsent > self.ring.max_bytes and not self.paused:
            self.pause(True)

    def pause(self, on):
        """Stop or go on reading the app-server, because of a link that does not keep up."""
        self.paused = on
        if on:
            self._after(PAUSE_S, "pause", lambda: self.drop(self.link, "too slow"))
        else:
            self.timers.pop("pause", None)
        if self.app and "mute" not in self.timers:
            self._watch(self.app.out, 0 if on else selectors.EVENT_READ, self.read_output)

    def restart(self, reason):
        """End this life of the app-server; the next begins when it is gone."""
        if self.app is None:
            self.quick = 0
            self.timers.pop("start", None)
            return self.start()
        if self.app.reason is None:
            self.app.reason = reason
            self.app.signal(signal.SIGTERM)
            app = self.app
            self._after(1.5, "kill", lambda: app.signal(signal.SIGKILL))

    def reap(self):
        """Called when the process may have ended: read what it left, then say that it died."""
        app = self.app
        code = app.process.poll()
        if code is None:
            return self._after(0.1, "reap", self.reap)
        while self.read_output():
            pass
        while self.read_errors():
            pass
        for name in ("kill", "mute"):
            self.timers.pop(name, None)
        for fd in (app.out, app.err, app.stdin, app.pidfd):
            if fd is not None:
                self._watch(fd, 0, None)
        app.signal(signal.SIGKILL)  # what it left behind in its group
        app.close()
        self.app = None
        if time.monotonic() - app.started > QUICK_S or app.reason in ASKED:
            self.quick = 0
        self.died(code if code >= 0 else None, -code if code < 0 else None, app.reason or "exited")

    def died(self, code, number, reason):
        half = self.splitter.finish()
        if half:
            self.publish(half)
        self.quick += 1
        self.state = "failed" if self.quick >= FAILED_AFTER else "restarting"
        self.gate = bool(self.link and self.link.kind == "attach")
        tail = self.log.tail.decode("utf-8", "replace").strip()[-500:]
        told = {"life": self.life, "code": code, "signal": number, "reason": reason, "state": self.state, "stderr": tail}
        self.publish(line({"method": "bridge/exited", "params": told}), own=True)
        self.log.note("life %d ended: code %s, signal %s, %s" % (self.life, code, number, reason))
        self._after(BACKOFF_S[min(self.quick, len(BACKOFF_S)) - 1], "start", self.start)

    def shutdown(self):
        """SIGTERM or SIGINT: take the app-server along, quickly."""
        if self.app:
            self.app.signal(signal.SIGTERM)
            deadline = time.monotonic() + 0.3
            while self.app.process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.01)
            self.app.signal(signal.SIGKILL)
        if self.config["listen"].startswith("unix:"):
            try:
                os.unlink(self.config["listen"][5:])
            except OSError:
                pass
        os._exit(0)

    # -- links

    def accept(self, server):
        try:
            sock = server.accept()[0]
        except OSError:
            return
        sock.setblocking(False)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if len(self.strangers) >= STRANGERS:
            return sock.close()
        link = Link(sock, 0, None)
        self.strangers.add(link)
        self._watch(sock, selectors.EVENT_READ, lambda mask: self.on_link(link, mask))
        self._after(FIRST_LINE_S, link, lambda: self.drop(link, "no first line"))

    def on_link(self, link, mask):
        if mask & selectors.EVENT_WRITE:
            self.write_link(link)
        if mask & selectors.EVENT_READ and link.kind != "closed":
            try:
                data = link.sock.recv(READ)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                return self.drop(link, "closed by peer")
            if link.kind == "stranger":
                self.introduce(link, data)
            else:
                self.feed(link, data)

    def write_link(self, link):
        try:
            link.flush()
        except OSError:
            return self.drop(link, "gone")
        if self.paused and link.unsent <= self.ring.max_bytes // 2:
            self.pause(False)
        self.wait_for(link)

    def wait_for(self, link):
        """Ask for just the events that this link can be served on now."""
        if link.kind == "closed":
            return
        full = self.app is not None and self.app.waiting > INPUT_HIGH and link.kind != "stranger"
        mask = (0 if full else selectors.EVENT_READ) | (selectors.EVENT_WRITE if link.output else 0)
        self._watch(link.sock, mask, lambda mask: self.on_link(link, mask))

    def drop(self, link, why):
        if link is None or link.kind == "closed":
            return
        self.strangers.discard(link)
        self.timers.pop(link, None)
        self._watch(link.sock, 0, None)
        if link is self.link:
            self.sent, self.link = max(self.sent, link.sent_lines()), None
            self.log.note("link %d ended: %s" % (link.number, why))
            if self.paused:
                self.pause(False)
        link.kind = "closed"
        link.sock.close()

    def refuse(self, link, message, **data):
        try:
            link.sock.send(line({"id": 1, "error": {"code": -32000, "message": message, "data": data}}))
        except OSError:
            pass
        self.drop(link, message)

    def introduce(self, link, data):
        """The first line of a link decides what it is."""
        lines = link.lines(data)
        if not lines:
            if link.held > FIRST_LINE_BYTES:
                self.refuse(link, "the first line is too long")
            return
        first, _, rest = (lines + b"".join(link.parts)).partition(b"\n")
        link.parts, link.held = [], 0
        try:
            message = json.loads(first)
            method, params = message.get("method"), message.get("params") or {}
            shown, term, after = params.get("secret") or "", int(params.get("term", 0)), int(params.get("after", 0))
        except (ValueError, AttributeError, TypeError, RecursionError):
            method, shown, term, after = None, "", 0, 0
        known = method in ("bridge/attach", "bridge/plain")
        if self.secret and not (known and hmac.compare_digest(str(shown).encode(), self.secret.encode())):
            return self.refuse(link, "the first line must be bridge/attach or bridge/plain with the right secret")
        if method == "bridge/attach":
            self.attach(link, term, after, rest)
        else:
            self.plain(link, rest if known else first + b"\n" + rest, known)

    def attach(self, link, term, after, rest):
        if term < self.term:
            return self.refuse(link, "a newer gateway holds this runtime", term=self.term)
        self.drop(self.link, "replaced")
        self.term = term
        self.links += 1
        self.take(link, "attach", self.links)
        gap = after + 1 < self.ring.first or after >= self.ring.next
        after = min(max(after, self.ring.first - 1), self.ring.next - 1)
        told = {"bridge": 1, "epoch": self.epoch, "link": self.links, "life": self.life, "first": after + 1}
        told.update(next=self.ring.next, sent=self.sent, gap=gap, state=self.state)
        link.queue(0, line({"id": 1, "result": told}))
        for first, block in self.ring.after(after):
            link.queue(first, block)
        self.write_link(link)
        self.feed(link, rest)

    def plain(self, link, data, answer):
        """A raw pipe from here on, with an app-server of its own, as if it had been started for it."""
        if self.link and self.link.kind == "attach":
            return self.refuse(link, "a gateway holds this runtime")
        self.drop(self.link, "replaced")
        self.take(link, "plain", 0)
        if answer:
            link.queue(0, line({"id": 1, "result": {}}))
            self.write_link(link)
        if self.fed or self.app is None:
            link.parts, link.held = [data], len(data)
            self.restart(ASKED[1])
        else:
            self.feed(link, data)

    def take(self, link, kind, number):
        self.strangers.discard(link)
        self.timers.pop(link, None)
        self.link, self.gate = link, False
        link.kind, link.number = kind, number

    def feed(self, link, data):
        """Whole lines of the link go to the app-server; lines for the bridge itself are kept back."""
        if link.kind == "closed":
            return
        if link.kind == "plain" and (self.app is None or self.app.reason == ASKED[1]):
            link.parts.append(data)  # its own app-server is on its way
            link.held += len(data)
        elif lines := link.lines(data):
            if self.app is None or self.gate or b'{"method":"bridge/' in lines:
                lines = self.control(lines)
            if lines and self.app is not None:
                self.fed = True
                self.app.write(lines)
                self.write_input()
        if link.held > INPUT_LINE:
            self.drop(link, "line too long")

    def control(self, lines):
        """Obey and take out `bridge/…` lines; after a death drop all until the handshake of the new life begins."""
        keep = []
        for text in lines.splitlines(keepends=True):
            if text.startswith(b'{"method":"bridge/'):
                if text.startswith(b'{"method":"bridge/restart"'):
                    self.restart(ASKED[0])
                continue
            if self.gate and text.startswith(b'{"method":"initialize"'):
                self.gate = False
            if not self.gate:
                keep.append(text)
        return b"".join(keep)

    def write_input(self, mask=0):
        app = self.app
        if app is None:
            return
        left = app.flush()
        self._watch(app.stdin, selectors.EVENT_WRITE if left else 0, self.write_input)
        if self.link:
            self.wait_for(self.link)


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as config_file:
        Bridge(json.load(config_file)).run()
