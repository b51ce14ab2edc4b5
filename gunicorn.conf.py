"""How gunicorn serves Argus: one gevent worker. `gunicorn wsgi:app` and `./argus up` both use this file."""

import sys

from app import serving
from app.errors import StartRefused
from app.settings import load

try:
    settings = load()
except StartRefused as error:
    sys.exit(f"argus: {error.text}")

bind = f"[{settings.bind}]:{settings.port}" if ":" in settings.bind else f"{settings.bind}:{settings.port}"
worker_class = "gevent"
workers = 1
worker_connections = serving.raise_file_limit(20000)
backlog = 2048
keepalive = 30
timeout = 120
graceful_timeout = 5
control_socket_disable = True
proc_name = "argus"
loglevel = "warning"
forwarded_allow_ips = ""  # forwarded headers are never believed


def on_starting(server):
    """Before anything listens: refuse what would be unsafe or lose things."""
    try:
        serving.check_server(server.cfg, settings)
    except StartRefused as error:
        sys.exit(f"argus: {error.text}")


def post_worker_init(worker):
    """The application is loaded: take signals over, say where it is."""
    from wsgi import app

    services = app.extensions["argus"]
    serving.scrub_gunicorn()
    serving.speak_json()
    serving.take_over_signals(worker, services)
    serving.begin(services)
    serving.announce(services, serving.url_of(worker.sockets))
