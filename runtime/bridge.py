#!/usr/bin/env python3
"""The supervisor inside a runtime: owns one app-server's stdio and keeps it alive while gateways come and go.

    python3 bridge.py CONFIG.json

Standard library only, one file, one thread. It starts the app-server, numbers the lines it prints, keeps the newest
of them in a ring, and hands them to whoever attaches with the secret. docs/bridge.md is the protocol and the
configuration; `listen` and `command` must be there, DEFAULTS has the rest.
"""

import collections
import contextlib
import fcntl
import hmac
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time

DEFAULTS = {
    "cwd": None, "workspace": None, "templates": "", "log": None, "secret": None,
    "ring_bytes": 4 << 20, "ring_lines": 20000, "line_limit": 8 << 20,
    "first_line_s": 10.0,  # a link that has not shown the secret by then is closed
    "pause_s": 10.0,  # how long a slow link may hold up the app-server
    "quick_s": 10.0,  # a life shorter than this is a quick death
    "backoff_s": [0.1, 0.5, 1, 2, 5, 10, 30],  # before the next life, by the number of quick deaths in a row
}  # fmt: skip
READ = 65536
FIRST_LINE, STRANGERS = 65536, 16  # what links may cost before they have shown the secret: bytes each, number
INPUT_HIGH = 1 << 20  # more than this waiting for the app-server's stdin: the link is not read
INPUT_LINE = 64 << 20  # a longer line from the link ends it
LEFTOVER = 64  # blocks read from a dead app-server's pipes, which its children may hold and go on to fill
GRACE = 1.5  # seconds from SIGTERM to SIGKILL
FAILED_AFTER = 5  # so many quick deaths in a row mean `failed`
ASKED = ("asked for by the gateway", "plain link")  # ends that are nobody's fault
OOM_COUNTS = ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control")  # as a container sees it
IN, OUT = selectors.EVENT_READ, selectors.EVENT_WRITE


class Ring:
    """The newest output, as blocks of whole lines. Line numbers begin at 1; blocks are never split."""

    def __init__(self, max_bytes, max_lines):
        self.max_bytes, self.max_lines = max_bytes, max_lines
        self.blocks = collections.deque()  # (numbers of its first and last line, bytes)
        self.bytes, self.next = 0, 1

    @property
    def first(self):
        return self.blocks[0][0] if self.blocks else self.next

    def append(self, block):
        """Number the lines of `block`; returns the number of the last."""
        first, blocks = self.next, self.blocks
        self.next += block.count(b"\n")
        blocks.append((first, self.next - 1, block))
        self.bytes += len(block)
        while len(blocks) > 1 and (self.bytes > self.max_bytes or self.next - blocks[0][0] > self.max_lines):
            self.bytes -= len(blocks.popleft()[2])
        return self.next - 1

    def after(self, number):
        """(last line, bytes) of each block, or part of one, that holds lines after `number`."""
        for first, last, block in self.blocks:
            if last > number:
                at = 0
                for _ in range(number + 1 - first):
                    at = block.index(b"\n", at) + 1
                yield last, block[at:] if at else block


class Splitter:
    """Cuts what is read into blocks of whole lines, none longer than the limit; nor may what is read at once be."""

    def __init__(self, limit):
        self.limit, self.half, self.over = limit, bytearray(), False

    def feed(self, chunk):
        """The lines that `chunk` completes, or None. A line over the limit becomes an empty one, and the last."""
        if self.over:
            return None
        end, half = chunk.rfind(b"\n") + 1, self.half
        if half:
            if len(half) + (chunk.find(b"\n") if end else len(chunk)) > self.limit:
                self.half, self.over = bytearray(), True
                return b"\n"
            if end:
                self.half = bytearray(chunk[end:])
                return b"".join((half, memoryview(chunk)[:end]))
        if end == len(chunk):
            return chunk
        half += chunk[end:]
        return chunk[:end] if end else None

    def finish(self):
        """The half line that was left, ended, or None; what is fed next begins anew."""
        block = bytes(self.half) + b"\n" if self.half else None
        self.half, self.over = bytearray(), False
        return block


class Log:
    """The app-server's stderr and the bridge's own words, in a file that is set aside as .1 once it is large."""

    def __init__(self, path, max_bytes=1 << 20):
        self.path, self.max_bytes = path, max_bytes

    def write(self, data):
        if self.path:
            with contextlib.suppress(OSError):  # a full disk must not take the agent down
                with open(self.path, "ab", buffering=0, opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
                    file.write(data)
                    size = file.tell()
                if size > self.max_bytes:
                    os.replace(self.path, self.path + ".1")

    def note(self, text):
        self.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S')} bridge: {text}\n".encode("utf-8", "replace"))


class Outbox:
    """Blocks that wait to be written to something that may not take them at once."""

    def __init__(self, write):
        self.write, self.blocks, self.offset, self.waiting, self.done = write, collections.deque(), 0, 0, 0

    def put(self, block, last=0):
        """`last`: the number of the block's last line, where its lines have numbers."""
        self.blocks.append((last, block))
        self.waiting += len(block)

    def flush(self):
        """Write what is taken; OSError when nobody is there any more."""
        while self.blocks:
            last, block = self.blocks[0]
            try:
                n = self.write(memoryview(block)[self.offset :] if self.offset else block)
            except (BlockingIOError, InterruptedError):
                return
            self.offset += n
            self.waiting -= n
            if self.offset == len(block):
                self.blocks.popleft()
                self.offset, self.done = 0, last or self.done

    def written(self):
        """The number of the last line that was written whole."""
        if self.offset and self.blocks[0][0]:
            last, block = self.blocks[0]
            return max(self.done, last - block.count(b"\n", self.offset))
        return self.done


class Link:
    """One accepted connection. kind: stranger until its first line, then attach or plain; at last ending, closed."""

    def __init__(self, sock):
        self.sock, self.kind, self.number = sock, "stranger", 0
        self.input, self.output = Splitter(FIRST_LINE), Outbox(sock.send)
        self.waits, self.held = False, bytearray()  # a plain link for its own app-server; its lines until then
        self.room = INPUT_HIGH  # it is not read while more than this waits for the app-server's stdin


class AppServer:
    """The program whose stdio the bridge owns: one object for each life of it."""

    def __init__(self, command, cwd):
        argv = ["/bin/sh", "-c", command] if isinstance(command, str) else command
        self.process = subprocess.Popen(argv, cwd=cwd, stdin=-1, stdout=-1, stderr=-1, bufsize=0, process_group=0)
        self.stdin, self.out, self.err = pipes = self.process.stdin, self.process.stdout, self.process.stderr
        for pipe in pipes:
            os.set_blocking(pipe.fileno(), False)
        self.input = Outbox(lambda data: os.write(self.stdin.fileno(), data))
        self.started, self.reason = time.monotonic(), None  # reason: why the bridge ends it
        self.said, self.oom = b"", oom_kills()  # the end of its stderr
        with contextlib.suppress(OSError), open(f"/proc/{self.process.pid}/oom_score_adj", "w") as file:
            file.write("500")  # when memory is short it goes before the bridge, which can tell why

    def signal(self, number):
        """To its process group: to it and to the children that did not leave."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, number)


def line(message):
    """One JSON line."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def call(text):
    """(method, params) of a line; "" and {} where it has none."""
    try:
        message = json.loads(text)
        method, params = message.get("method"), message.get("params")
    except (ValueError, AttributeError, RecursionError):
        return "", {}
    return method if isinstance(method, str) else "", params if isinstance(params, dict) else {}


def oom_kills():
    """How many processes the kernel has ended here because the container's memory was used up."""
    for path in OOM_COUNTS:
        with contextlib.suppress(OSError, ValueError, KeyError), open(path) as file:
            return int(dict(text.split() for text in file)["oom_kill"])
    return 0


def bootstrap(workspace, templates):
    """Put AGENTS.md, SOUL.md, USER.md and HEARTBEAT.md in the workspace; never over an existing file."""
    os.makedirs(workspace, exist_ok=True)
    for name, source in (("AGENTS", "AGENTS.default"), ("SOUL", "SOUL"), ("USER", "USER"), ("HEARTBEAT", "HEARTBEAT")):
        try:
            with open(os.path.join(templates, source + ".md"), encoding="utf-8") as file:
                text = file.read()
        except (OSError, ValueError):
            text = f"# {name}\n"
        if text.startswith("---\n"):  # front matter is for people who look through the templates
            text = text.split("\n---\n", 1)[-1].lstrip("\n")
        path = os.path.join(workspace, f"{name}.md")
        try:
            with open(path, "x", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError:
            pass
        except OSError:  # a full disk: the next start shall find nothing rather than half of it
            with contextlib.suppress(OSError):
                os.unlink(path)
            raise


def listen(where):
    """A listening socket: `unix:/path` (mode 0600) or `tcp:HOST:PORT`. Ends the program if the path is served."""
    scheme, _, rest = where.partition(":")
    if scheme == "unix":
        lock = os.open(rest + ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # for as long as this process lives
        except OSError:
            sys.exit(f"bridge: another bridge serves {rest}")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(rest)
        server = socket.socket(socket.AF_UNIX)
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
        self.config = config = {**DEFAULTS, **config}
        self.ring = Ring(config["ring_bytes"], config["ring_lines"])
        self.splitter, self.chunk = Splitter(config["line_limit"]), min(READ, config["line_limit"])
        self.log = Log(config["log"])
        self.selector, self.timers = selectors.DefaultSelector(), {}
        self.epoch, self.links, self.term, self.sent = os.urandom(6).hex(), 0, 0, 0
        self.mark = os.urandom(16).hex()  # on the bridge's own lines; the app-server never learns it
        self.life, self.quick, self.state = 0, 0, "restarting"
        self.app = self.link = None
        self.strangers = {}  # in order of coming
        self.begun = 0  # number of the line that says that this life began
        self.fed = self.gate = self.paused = False  # fed: this life was sent something; gate: see control()

    # -- the loop

    def run(self):
        if self.config["workspace"]:
            try:
                bootstrap(self.config["workspace"], self.config["templates"])
            except OSError as error:  # the agent can do without
                self.log.note(f"the workspace was not prepared: {error}")
        wake, wakeup = socket.socketpair()
        wakeup.setblocking(False)
        signal.set_wakeup_fd(wakeup.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):  # only now: one before it would be lost
            signal.signal(number, lambda *_: None)
        self.watch(wake, IN, lambda mask: self.signalled(wake.recv(READ)))
        server = listen(self.config["listen"])
        self.watch(server, IN, lambda mask: self.accept(server))
        self.start()
        while True:
            self.once()

    def once(self):
        """Wait, serve what is ready, then what is due."""
        timeout = min((when for when, _ in self.timers.values()), default=None)
        for key, mask in self.selector.select(timeout and max(0, timeout - time.monotonic())):
            if self.selector.get_map().get(key.fd) is key:  # not closed by an earlier event of this round
                key.data(mask)
        if self.timers:
            now = time.monotonic()
            for name, timer in list(self.timers.items()):
                if timer[0] <= now and self.timers.get(name) is timer:
                    del self.timers[name]
                    timer[1]()

    def watch(self, fd, mask, act=None):
        """Register, change or (mask 0) forget what to wait for on `fd`; `act(mask)` is called then."""
        known = self.selector.get_map().get(fd)
        if not mask:
            if known:
                self.selector.unregister(fd)
        elif not known:
            self.selector.register(fd, mask, act)
        elif known.events != mask:
            self.selector.modify(fd, mask, act)

    def after(self, delay, name, act):
        self.timers[name] = (time.monotonic() + delay, act)

    # -- the app-server

    def start(self):
        self.life += 1
        link = self.link
        if link:
            link.waits = False
        try:
            cwd = self.config["cwd"] or self.config["workspace"] or "."
            app = self.app = AppServer(self.config["command"], cwd)
        except (OSError, ValueError) as error:
            return self.died(f"cannot start: {error}")
        self.state, self.fed = "running", False
        self.watch(app.out, 0 if self.paused else IN, self.read_output)
        self.watch(app.err, IN, self.read_errors)
        self.tell("bridge/started", life=self.life)
        self.begun = self.ring.next - 1
        if link and link.held:
            held, link.held = bytes(link.held), bytearray()
            self.feed(link, held)

    def read_output(self, mask=0):
        """Take what it has printed; False if that was nothing."""
        chunk = self.app.out.read(self.chunk)
        if not chunk:
            if chunk is not None:
                self.watch(self.app.out, 0)
                self.closed("output")
            return False
        block = self.splitter.feed(chunk)
        if block:
            self.publish(block)
            if self.splitter.over:
                self.restart("line too long")
        return True

    def read_errors(self, mask=0):
        chunk = self.app.err.read(READ)
        if chunk:
            self.log.write(chunk)
            self.app.said = (self.app.said + chunk)[-2000:]
        elif chunk is not None:
            self.watch(self.app.err, 0)
        return bool(chunk)

    def closed(self, what):
        """It closed a pipe: it ends, which reap() will see, or it lives on and is of no use."""
        self.after(0.5, "mute", lambda: self.restart(f"closed its {what}"))

    def publish(self, block, own=False):
        """Number a block, keep it, send it. A plain link gets only what its own app-server prints."""
        last, link = self.ring.append(block), self.link
        if link is None or (link.kind == "plain" and (own or link.waits)):
            return
        link.output.put(block, last)
        if len(link.output.blocks) == 1:
            self.write_link(link)
        if link.output.waiting > self.ring.max_bytes and not self.paused and link is self.link:
            self.pause(True)

    def tell(self, method, **params):
        """A line of the bridge's own in the stream."""
        self.publish(line({"method": method, "mark": self.mark, "params": params}), own=True)

    def pause(self, on):
        """Stop or go on reading the app-server, because of a link that does not keep up."""
        self.paused, link = on, self.link
        if on:
            self.after(self.config["pause_s"], "pause", lambda: self.drop(link, "too slow"))
        else:
            self.timers.pop("pause", None)
        if self.app and "mute" not in self.timers:
            self.watch(self.app.out, 0 if on else IN, self.read_output)

    def restart(self, reason, grace=GRACE):
        """End this life of the app-server, by force after `grace` seconds; the next begins when it is gone."""
        app = self.app
        if app is None:
            self.quick = 0
            self.timers.pop("start", None)
            self.start()
            return
        if app.reason is None:
            app.reason = reason
            app.signal(signal.SIGTERM)
        due = self.timers.get("kill")
        if due is None or due[0] > time.monotonic() + grace:  # asking again can only bring it nearer
            self.after(grace, "kill", lambda: app.signal(signal.SIGKILL))

    def reap(self):
        """Called when the process may have ended: read what it left, then say that it died."""
        app = self.app
        code = app and app.process.poll()
        if code is None:
            return
        app.signal(signal.SIGKILL)  # what it left behind in its group
        for read in (self.read_output, self.read_errors):
            for _ in range(LEFTOVER):
                if not read():
                    break
        half = self.splitter.finish()
        if half:
            self.publish(half)
        for name in ("kill", "mute"):
            self.timers.pop(name, None)
        for pipe in (app.stdin, app.out, app.err):
            self.watch(pipe, 0)
            pipe.close()
        self.app = None
        if time.monotonic() - app.started > self.config["quick_s"] or app.reason in ASKED:
            self.quick = 0
        if code == -signal.SIGKILL and not app.reason and oom_kills() > app.oom:
            app.reason = "runtime out of memory"
        said = app.said.decode("utf-8", "replace").strip()[-500:]
        self.died(app.reason or "exited", code if code >= 0 else None, -code if code < 0 else None, said)

    def died(self, reason, code=None, number=None, said=""):
        """There is no app-server now: tell, and begin the next life after a while."""
        self.quick += 1
        self.state = "failed" if self.quick >= FAILED_AFTER else "restarting"
        self.gate = True
        told = {"life": self.life, "code": code, "signal": number, "reason": reason, "state": self.state}
        self.tell("bridge/exited", **told, stderr=said)
        self.log.note(f"life {self.life} ended: code {code}, signal {number}, {reason}")
        backoff = self.config["backoff_s"]
        self.after(backoff[min(self.quick, len(backoff)) - 1], "start", self.start)
        link = self.link
        if link and link.kind == "plain" and not link.waits:  # its app-server was all it had
            self.link, link.kind = None, "ending"
            self.pause(False)
            self.after(self.config["pause_s"], link, lambda: self.drop(link, "too slow"))
            self.write_link(link)
        elif link:
            self.wait_for(link)

    def signalled(self, numbers):
        """SIGCHLD: somebody ended. SIGTERM or SIGINT: end, and take the app-server along, quickly."""
        if signal.SIGTERM not in numbers and signal.SIGINT not in numbers:
            return self.reap()
        if self.app:
            self.app.signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.app.process.wait(0.3)
            self.app.signal(signal.SIGKILL)
        if self.config["listen"].startswith("unix:"):
            with contextlib.suppress(OSError):
                os.unlink(self.config["listen"][5:])
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
            self.refuse(next(iter(self.strangers)), "too many links wait")
        link = Link(sock)
        self.strangers[link] = True
        self.watch(sock, IN, lambda mask: self.on_link(link, mask))
        self.after(self.config["first_line_s"], link, lambda: self.refuse(link, "no first line came in time"))

    def on_link(self, link, mask):
        if mask & OUT:
            self.write_link(link)
        if mask & IN and link.kind != "closed":
            try:
                data = link.sock.recv(READ)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                return self.drop(link, "closed by peer")
            lines = link.input.feed(data)
            if link.input.over:
                self.refuse(link, "the line is too long")
            elif lines and link.kind == "stranger":
                self.introduce(link, lines)
            elif lines:
                self.feed(link, lines)

    def write_link(self, link):
        try:
            link.output.flush()
        except OSError:
            return self.drop(link, "gone")
        if link.kind == "ending" and not link.output.waiting:
            return self.drop(link, "its app-server ended")
        if self.paused and link is self.link and link.output.waiting <= self.ring.max_bytes // 2:
            self.pause(False)
        self.wait_for(link)

    def wait_for(self, link):
        """Ask for just the events that this link can be served on now."""
        waiting = len(link.held) if link.waits else self.app.input.waiting if self.app else 0
        mask = (0 if waiting > link.room or link.kind == "ending" else IN) | (OUT if link.output.waiting else 0)
        self.watch(link.sock, mask, lambda mask: self.on_link(link, mask))

    def drop(self, link, why):
        if link.kind == "closed":
            return
        self.strangers.pop(link, None)
        self.timers.pop(link, None)
        self.watch(link.sock, 0)
        if link.kind != "stranger":
            self.log.note(f"link {link.number} ended: {why}")
        if link is self.link:
            self.sent, self.link = max(self.sent, link.output.written()), None
            self.pause(False)
        link.kind = "closed"
        link.sock.close()

    def refuse(self, link, message, **data):
        """Close a link, with a line that says why if it is a stranger's."""
        if link.kind == "stranger":
            self.log.note(f"a link was refused: {message}")
            with contextlib.suppress(OSError):
                link.sock.send(line({"id": 1, "error": {"code": -32000, "message": message, "data": data}}))
        self.drop(link, message)

    def introduce(self, link, lines):
        """The first line of a link decides what it is."""
        first, _, rest = lines.partition(b"\n")
        method, params = call(first)
        known, shown = method in ("bridge/attach", "bridge/plain"), params.get("secret")
        if self.config["secret"]:
            shown = shown.encode("utf-8", "replace") if isinstance(shown, str) else b""
            if not (known and hmac.compare_digest(shown, self.config["secret"].encode())):
                message = "the first line must be bridge/attach or bridge/plain with the right secret"
                return self.refuse(link, message)
        if method != "bridge/attach":
            return self.plain(link, rest if known else lines, known)
        term, after = params.get("term", 0), params.get("after", 0)
        if not (isinstance(term, int) and isinstance(after, int)):
            return self.refuse(link, "term and after must be whole numbers")
        if term < self.term:
            return self.refuse(link, "a newer gateway holds this runtime", term=self.term)
        self.term = term
        self.attach(link, after, rest)

    def attach(self, link, after, rest):
        self.links += 1
        self.take(link, "attach", self.links)
        gap = after + 1 < self.ring.first or after >= self.ring.next
        after = min(max(after, self.ring.first - 1), self.ring.next - 1)
        told = {"bridge": 1, "epoch": self.epoch, "link": self.links, "life": self.life, "first": after + 1}
        told.update(next=self.ring.next, sent=self.sent, gap=gap, state=self.state, mark=self.mark)
        link.output.put(line({"id": 1, "result": told}))
        self.replay(link, after, rest)

    def plain(self, link, lines, answer):
        """A raw pipe from here on, with an app-server of its own, as if it had been started for it."""
        if self.link and self.link.kind == "attach":
            return self.refuse(link, "a gateway holds this runtime")
        self.take(link, "plain", 0)
        if answer:
            link.output.put(line({"id": 1, "result": {}}))
        if self.app is None or self.fed or self.app.reason:
            link.waits, link.held = True, bytearray(lines)
            self.write_link(link)
            self.restart(ASKED[1])
        else:
            self.replay(link, self.begun, lines)

    def take(self, link, kind, number):
        """This is the link from now on."""
        if self.link:
            self.drop(self.link, "replaced")
        self.strangers.pop(link)
        self.timers.pop(link)
        self.link, link.kind, link.number, link.input.limit = link, kind, number, INPUT_LINE
        self.gate = kind == "attach" and self.app is None
        if self.app:  # what an older link left to be written must not keep this one from asking for a restart
            link.room += self.app.input.waiting

    def replay(self, link, after, lines):
        """Send what the ring has after this number, and take the link's first lines."""
        for last, block in self.ring.after(after):
            link.output.put(block, last)
        self.feed(link, lines)
        self.write_link(link)

    def feed(self, link, lines):
        """Lines of the link go to the app-server; those for the bridge itself are kept back."""
        if link.waits:
            link.held += lines
            return self.wait_for(link)
        if link.kind == "attach" and (self.app is None or self.gate or b"bridge" in lines):
            lines = self.control(lines)
        if lines and self.app:
            self.fed = True
            self.app.input.put(lines)
            self.write_input()

    def control(self, lines):
        """Obey and take out `bridge/…` lines; after a death drop all until the handshake of the new life begins."""
        keep = []
        for text in lines.split(b"\n")[:-1]:
            method, params = call(text)
            if method == "bridge/restart":
                grace = params.get("graceMs")
                self.restart(ASKED[0], min(grace, 1500) / 1000 if type(grace) is int and grace >= 0 else GRACE)
            if method == "initialize" and self.app:
                self.gate = False
            if not self.gate and not method.startswith("bridge/"):
                keep.append(text + b"\n")
        return b"".join(keep)

    def write_input(self, mask=0):
        app = self.app
        try:
            app.input.flush()
        except OSError:
            app.input = Outbox(len)  # takes all and keeps nothing
            self.closed("input")
        self.watch(app.stdin, OUT if app.input.waiting else 0, self.write_input)
        if self.link:
            self.wait_for(self.link)


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as config_file:
        Bridge(json.load(config_file)).run()
