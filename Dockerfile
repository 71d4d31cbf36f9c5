# The station in a container: slim, not root, and content with a read-only root file system (x86-64 and arm64).
#
#   docker build -t pcb-detector .
#   docker run -d -p 8000:8000 --name pcb-detector pcb-detector     the inspection API; its log says the API key, once
#   docker logs pcb-detector
#
# deploy/container-entry says what happens at the first start, docs/deployment.md the rest.

FROM python:3.11-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
RUN python -m venv /opt/station/venv && python -m venv /build/tools
COPY requirements/run.lock requirements/build.lock requirements/
RUN /opt/station/venv/bin/pip install --require-hashes -r requirements/run.lock \
    && /build/tools/bin/pip install --require-hashes -r requirements/build.lock
COPY pyproject.toml README.md LICENSE ./
COPY station station
RUN /build/tools/bin/pip wheel --no-deps --no-build-isolation -w dist . \
    && /opt/station/venv/bin/pip install --no-deps dist/*.whl

FROM python:3.11-slim-bookworm
# What OpenCV's wheel takes from the system.
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 station \
    && useradd --uid 10001 --gid station --groups dialout,video --home-dir /var/lib/station --no-create-home \
      --shell /usr/sbin/nologin station \
    && install -d -o station -g station -m 0750 /var/lib/station /srv/inbox
COPY --from=build /opt/station/venv /opt/station/venv
COPY deploy/container.toml /etc/station/station.toml
COPY --chmod=0755 deploy/container-entry /usr/local/bin/container-entry
# Beyond loopback needs auth = "required": container-entry makes the first key. Whatever configuration is mounted, these hold.
ENV PATH=/opt/station/venv/bin:$PATH \
    HOME=/var/lib/station \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONFAULTHANDLER=1 \
    STATION_CONFIG=/etc/station/station.toml \
    STATION_STATION__DATA_DIR=/var/lib/station \
    STATION_HTTP__HOST=0.0.0.0 \
    STATION_HTTP__AUTH=required
USER 10001:10001
WORKDIR /var/lib/station
# All that is ever written: keys, ledger, models and evidence; what workers share while they run.
VOLUME ["/var/lib/station", "/tmp"]
EXPOSE 8000
STOPSIGNAL SIGTERM
# Ready, and not only alive: what waits for this container waits until it can inspect. Restarting is the runtime's affair.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["container-entry", "healthcheck"]
ENTRYPOINT ["container-entry"]
CMD ["serve"]
