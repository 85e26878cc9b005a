# For a trial where no registry gives an object store: moto's server. It keeps all in memory, and looks before it puts.
ARG BASE_IMAGE=docker.io/library/python:3.11.13-slim-bookworm
FROM ${BASE_IMAGE}
COPY requirements.lock /opt/requirements.lock
RUN python3 -m venv /opt/moto \
 && sed 's/ *;.*//' /opt/requirements.lock > /opt/constraints.txt \
 && /opt/moto/bin/pip install --no-cache-dir --disable-pip-version-check -c /opt/constraints.txt 'moto[server]'
USER 10001:10001
ENTRYPOINT ["/opt/moto/bin/moto_server"]
