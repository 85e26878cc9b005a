#!/bin/sh
# Build the images, bring all up, run the demo's first weeks on it, ask every port for its login, take all down; the log
# goes to docs/containers.log, or where LOG says. For `make containers`; with podman and podman-compose, or docker, by
# CONTAINERS=docker. Status 77: it could not be tried on this machine, and a sentence says why.
#
# It is a trial: a project, volumes and secrets of its own, which are removed at its end, so that an installation on the
# same machine stays as it is; PAGE_PORT, MLFLOW_PORT and PREFECT_PORT name ports that are free. OVERRIDE names a compose
# file that is laid over ours; images.sh says what the images are built from.
set -eu
cd "$(dirname "$0")/.."
tool=${CONTAINERS:-podman}
skip() { echo "skipped: $1"; exit 77; }
case $tool in
    docker) compose="docker compose" ;;
    *) compose="podman-compose" ;;
esac
for program in "$tool" "${compose%% *}" curl openssl; do
    command -v "$program" > /dev/null || skip "$program is not installed"
done
SOFTAD_WORK=$(mktemp -d)
trap 'rm -rf "$SOFTAD_WORK"' EXIT
log=$SOFTAD_WORK/log kept=${LOG:-docs/containers.log} project=softad-trial
files="-p $project -f docker/compose.yaml${OVERRIDE:+ -f $OVERRIDE}"

run() { # words, command: the log has the words and the result, and what the command said only where it failed
    what=$1 begun=$(date +%s); shift
    if "$@" > "$SOFTAD_WORK/said" 2>&1; then
        echo "$what: done in $(($(date +%s) - begun)) s" | tee -a "$log"
    else
        echo "$what: failed" | tee -a "$log"
        tail -n 30 "$SOFTAD_WORK/said" >&2
        return 1
    fi
}
status() { # what a port answers to someone without a login, and with one
    curl --silent --insecure --max-time 20 --output /dev/null --write-out '%{http_code}' "$@" || true
}
export SECRETS_FOLDER="$SOFTAD_WORK/secrets"
docker/secrets.sh "$SECRETS_FOLDER"
. docker/images.sh
# shellcheck disable=SC2086
down() { run "down" $compose $files down -v; }
trap 'down || true; cp "$log" "$kept"; rm -rf "$SOFTAD_WORK"' EXIT
# shellcheck disable=SC2086
run "up" $compose $files up -d
# podman-compose says that all is well where not one container could be started: ask each for its reason.
for one in $("$tool" ps -a --filter status=created --format '{{.Names}}' | grep -E "^$project[_-]"); do
    run "start $one, which was left" "$tool" start "$one"
done
wait_for() { # seconds, words, command
    until=$(($(date +%s) + $1)); what=$2; shift 2
    until "$@" > /dev/null 2>&1; do
        if [ "$(date +%s)" -gt "$until" ]; then echo "not ready in time: $what" | tee -a "$log"; return 1; fi
        sleep 3
    done
    echo "ready: $what" | tee -a "$log"
}
page=https://${SOFTAD_HOST:-localhost}:${PAGE_PORT:-8443} mlflow=https://${SOFTAD_HOST:-localhost}:${MLFLOW_PORT:-5443} prefect=https://${SOFTAD_HOST:-localhost}:${PREFECT_PORT:-4443}
named() { "$tool" ps -a --format '{{.Names}}' | grep -E "^$project[_-]$1[_-]1\$"; }
initialised() { [ "$("$tool" inspect --format '{{.State.Status}} {{.State.ExitCode}}' "$(named init)")" = "exited 0" ]; }
wait_for "${WITHIN:-400}" "init has ended well" initialised
"$tool" logs "$(named init)" 2>&1 | sed 's/^/  init: /' | tee -a "$log"
answers() { [ "$(status "$1")" = "$2" ]; }
for url in "$page/" "$mlflow/" "$prefect/api/admin/version"; do
    wait_for 120 "$url asks for a login (401)" answers "$url" 401
done
viewer=viewer:$(cat "$SECRETS_FOLDER/viewer_password") service=$(cat "$SECRETS_FOLDER/prefect_auth")
for pair in "$page/ $viewer" "$mlflow/api/2.0/mlflow/users/current $viewer" "$prefect/api/admin/version $service"; do
    echo "with a login: ${pair%% *} $(status --user "${pair#* }" "${pair%% *}")" | tee -a "$log"
done
heard() { "$tool" logs "$(named worker)" 2>&1 | grep -q "Worker 'local' started"; }
wait_for 200 "the worker" heard
run "demo, ${WEEKS:-1} week" "$tool" exec "$(named worker)" python -m flows.cli demo --config /configs/production.yaml --workspace /workspace \
    --weeks "${WEEKS:-1}" --rows "${ROWS:-1000}" --json
echo "the page with the demo: $(status --user "$viewer" "$page/demo/")" | tee -a "$log"
curl --silent --insecure --user "$viewer" "$mlflow/api/2.0/mlflow/registered-models/get?name=demo" \
    | tr -d ' \n' | grep -o '"aliases":\[[^]]*\]' | tee -a "$log"
