# nginx as Debian has it: TLS for the page, MLflow and Prefect. BASE_IMAGE may hold it already.
ARG BASE_IMAGE=docker.io/library/debian:bookworm-20250811-slim
FROM ${BASE_IMAGE}
RUN test -x /usr/sbin/nginx \
 || (apt-get update && apt-get install -y --no-install-recommends nginx-light && rm -rf /var/lib/apt/lists/*)
COPY docker/nginx.conf /etc/nginx/nginx.conf
RUN getent passwd proxy || useradd --system --uid 13 --user-group proxy
USER proxy
ENTRYPOINT ["nginx", "-g", "daemon off;"]
