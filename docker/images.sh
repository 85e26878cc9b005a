# shellcheck shell=sh disable=SC2034,SC2154
# What the images are built from, and built; sourced by containers.sh, which has `tool`, `run`, `skip`, `log` and SOFTAD_WORK.
#
# From the public base images where they can be pulled. Where no registry is reachable, mmdebstrap makes base images of
# Debian's packages, pip sees this machine's configuration and the folders that it names, and moto's server takes the
# object store's place. PYTHON_IMAGE, DEBIAN_IMAGE and OBJECTS_IMAGE name images of yours, BUILD_OPTIONS what `build`
# needs besides; BUILT=1 takes the images as they are.

python=${PYTHON_IMAGE:-docker.io/library/python:3.11.13-slim-bookworm}
debian=${DEBIAN_IMAGE:-docker.io/library/debian:bookworm-20250811-slim}
objects=${OBJECTS_IMAGE:-docker.io/minio/minio:RELEASE.2025-04-22T22-12-26Z}

here() { "$tool" image inspect "$1" > /dev/null 2>&1; }
had() { here "$1" || timeout "${PULL_WITHIN:-300}" "$tool" pull --quiet "$1" > "$SOFTAD_WORK/pulled" 2>&1; }

base() { # name, packages: an image of Debian's own packages
    here "$1" || {
        mmdebstrap --quiet --variant=minbase --include="$2" bookworm "$SOFTAD_WORK/base.tar"
        "$tool" import "$SOFTAD_WORK/base.tar" "$1"
        rm "$SOFTAD_WORK/base.tar"
    }
}

pip_mounts() { # pip's configuration, and the folders that it names, as options of `build`
    for file in /etc/pip.conf /etc/xdg/pip/pip.conf "$HOME/.pip/pip.conf" "$HOME/.config/pip/pip.conf"; do
        [ -f "$file" ] || continue
        echo "$file"
        grep -oE '(file://)?/[^[:space:]]+' "$file" | sed 's#^file://##; s#/simple/*$##'
    done | sort -u | while read -r path; do
        case $path in "$HOME"/*) inside=/root${path#"$HOME"} ;; *) inside=$path ;; esac
        [ ! -e "$path" ] || printf -- '--volume %s:%s:ro ' "$path" "$inside"
    done
}

runs_containers() { "$tool" run --rm "$1" true > "$SOFTAD_WORK/ran" 2>&1; }

allow_containers() { # image: settings for an engine that has no systemd, or may not raise its limits
    runs_containers "$1" && return 0
    [ "$tool" = podman ] && [ -z "${CONTAINERS_CONF:-}" ] || return 1
    {
        echo '[containers]'
        echo "default_ulimits = [\"nofile=$(ulimit -n):$(ulimit -n)\", \"nproc=4096:4096\"]"
        echo '[engine]'
        echo 'cgroup_manager = "cgroupfs"'
        ! command -v runc > /dev/null || echo 'runtime = "runc"'
    } > "$SOFTAD_WORK/containers.conf"
    export CONTAINERS_CONF="$SOFTAD_WORK/containers.conf" BUILDAH_ISOLATION=chroot
    runs_containers "$1"
}

if ! had "$python" || ! had "$debian"; then
    if [ "$tool" != podman ] || ! command -v mmdebstrap > /dev/null; then
        skip "the base images $python and $debian cannot be pulled; name others by PYTHON_IMAGE and DEBIAN_IMAGE, or install mmdebstrap and podman, and base images are made of Debian's packages"
    fi
    echo "no registry gave the base images: they are made of Debian's packages" | tee -a "$log"
    python=localhost/softad-base:bookworm debian=localhost/softad-base-services:bookworm
    run "base image with Python" base "$python" python3,python3-venv,ca-certificates
    run "base image with PostgreSQL and nginx" base "$debian" postgresql-15,nginx-light
    BUILD_OPTIONS="--network host $(pip_mounts)${BUILD_OPTIONS:-}"
fi
if ! allow_containers "$python"; then
    command -v iptables > /dev/null || missing="; iptables, which its networks may need, is not installed"
    skip "$tool cannot run a container on this machine: $(tail -n 1 "$SOFTAD_WORK/ran")${missing:-}"
fi
if ! had "$objects"; then
    echo "no registry gave the object store: moto's server stands in for it" | tee -a "$log"
    # shellcheck disable=SC2086
    run "build moto" "$tool" build ${BUILD_OPTIONS:-} -f docker/objects.Dockerfile --build-arg BASE_IMAGE="$python" -t softad-objects:trial .
    objects=softad-objects:trial
    export OBJECTS_COMMAND="-H 0.0.0.0 -p 9000"
fi
export PYTHON_IMAGE="$python" DEBIAN_IMAGE="$debian" OBJECTS_IMAGE="$objects"
if [ -z "${BUILT:-}" ]; then
    # shellcheck disable=SC2086
    {
        run "build softad" "$tool" build ${BUILD_OPTIONS:-} -f docker/Dockerfile --build-arg BASE_IMAGE="$python" -t softad:0.1.0 .
        run "build softad-postgres" "$tool" build ${BUILD_OPTIONS:-} -f docker/postgres.Dockerfile --build-arg BASE_IMAGE="$debian" -t softad-postgres:15 .
        run "build softad-proxy" "$tool" build ${BUILD_OPTIONS:-} -f docker/proxy.Dockerfile --build-arg BASE_IMAGE="$debian" -t softad-proxy:1 .
    }
fi
