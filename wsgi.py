"""gunicorn's entry: `gunicorn wsgi:app`."""

import sys

from app.errors import StartRefused
from app.routes import create_app
from app.serving import set_up_logging
from app.settings import load
from app.wiring import build

try:
    settings = load()
    set_up_logging(settings.log_level)
    app = create_app(build(settings))
except StartRefused as error:
    print(f"argus: {error.text}", file=sys.stderr, flush=True)
    sys.exit(3)  # gunicorn stops as a whole on this code instead of trying again
