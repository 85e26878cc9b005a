#!/bin/sh
# Make what is missing among the secrets that compose.yaml names. The folder is closed to others; the files in it are
# readable, since a container reads them as another user.
set -eu
folder=${1:-$(dirname "$0")/secrets}
mkdir -p "$folder"
chmod 700 "$folder"
random() { head -c 24 /dev/urandom | base64 | tr '+/' '-_'; }
for name in postgres_password postgres_mlflow_password postgres_prefect_password mlflow_secret_key \
    mlflow_admin_password mlflow_softad_password prefect_auth viewer_password operator_password approver_password \
    aws_access_key_id aws_secret_access_key; do
    [ -s "$folder/$name" ] && continue
    case $name in
        prefect_auth) printf 'softad:%s\n' "$(random)" ;;
        aws_access_key_id) printf 'softad\n' ;;
        *) printf '%s\n' "$(random)" ;;
    esac > "$folder/$name"
done
if [ ! -s "$folder/tls_key" ]; then
    # For a trial; put the plant's own certificate and key in their place.
    openssl req -x509 -newkey rsa:2048 -nodes -days 365 -subj "/CN=${SOFTAD_HOST:-localhost}" \
        -addext "subjectAltName=DNS:${SOFTAD_HOST:-localhost},IP:127.0.0.1" \
        -keyout "$folder/tls_key" -out "$folder/tls_certificate" 2> /dev/null
fi
chmod 444 "$folder"/*
