# The worker, and whatever else the `convotic` and `celery` commands run. No image was built where this
# was written (there was no Docker engine); see README.md.
FROM python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY convotic_celery convotic_celery
COPY transports transports
COPY modules modules
RUN python -m venv /venv && /venv/bin/pip install --no-cache-dir --constraint constraints.txt .

FROM python:3.13-slim
RUN useradd --create-home --uid 1000 convotic && mkdir /data && chown convotic /data
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 CONVOTIC_DATA_DIR=/data CONVOTIC_HEALTH_PORT=8080
WORKDIR /app
# Your modules, as in a checkout: ./modules is where a worker looks.
COPY modules modules
USER convotic
# SIGTERM lets handlers finish: give it more than the longest ack deadline.
STOPSIGNAL SIGTERM
CMD ["celery", "-A", "convotic_celery", "worker", "--loglevel", "INFO"]
