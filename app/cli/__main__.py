"""`python -m app.cli COMMAND` is `./argus COMMAND`."""

import sys

from app.cli.launch import main

sys.exit(main(sys.argv[1:]))
