# The gateway. Build context: the repository; .dockerignore keeps all but what it needs out.
ARG BASE_IMAGE=python:3.12-slim-bookworm

FROM ${BASE_IMAGE} AS build
WORKDIR /app
COPY argus requirements.txt ./
COPY app/__init__.py app/errors.py app/
COPY app/cli/__init__.py app/cli/environment.py app/cli/
# The launcher's own .venv, so that `./argus link` and the others find all they need in the container.
RUN python3 -c "from app.cli.environment import ensure; ensure('requirements.txt')" \
    && .venv/bin/python -m pip --version \
    && find .venv -name __pycache__ -prune -exec rm -rf {} +

FROM ${BASE_IMAGE}
WORKDIR /app
COPY --from=build /app/.venv .venv
COPY argus gunicorn.conf.py wsgi.py requirements.txt ./
COPY runtime runtime
COPY web web
COPY app app
# Inside, it listens on every address: which of the host's addresses leads here is compose's business.
ENV ARGUS_PROVISION_MODE=docker ARGUS_BIND=0.0.0.0 ARGUS_PORT=8080 PYTHONUNBUFFERED=1
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["/bin/sh", "-c", "exec .venv/bin/python -S -c \"import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ['ARGUS_PORT'] + '/healthz', timeout=4)\""]
CMD ["./argus", "up"]
