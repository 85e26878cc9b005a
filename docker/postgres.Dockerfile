# PostgreSQL as Debian has it. BASE_IMAGE may hold it already, such as an image made where no packages can be fetched.
ARG BASE_IMAGE=docker.io/library/debian:bookworm-20250811-slim
FROM ${BASE_IMAGE}
RUN test -x /usr/lib/postgresql/15/bin/postgres \
 || (apt-get update && apt-get install -y --no-install-recommends postgresql-15 && rm -rf /var/lib/apt/lists/*)
ENV PATH=/usr/lib/postgresql/15/bin:$PATH
COPY --chmod=0755 docker/postgres.sh /usr/local/bin/start-postgres
RUN install -d -o postgres -g postgres -m 0700 /data
USER postgres
VOLUME /data
STOPSIGNAL SIGINT
ENTRYPOINT ["start-postgres"]
