#!/bin/sh
# The data folder where it is missing (made aside, so that one half made is not taken), then the server.
set -eu
if [ ! -e /data/cluster/PG_VERSION ]; then
    rm -rf /data/cluster.part
    initdb -D /data/cluster.part -U postgres -E UTF8 --locale=C --no-instructions --auth=scram-sha-256 \
        --pwfile="${POSTGRES_PASSWORD_FILE:-/run/secrets/postgres_password}"
    # Only logins over the network, and only with a password.
    printf 'host all all all scram-sha-256\n' > /data/cluster.part/pg_hba.conf
    mv /data/cluster.part /data/cluster
fi
exec "$@"
