#!/bin/sh
# programs.sh KIND...: sees that these programs are on the machine, as Debian packages where we may install them.
# What cannot be had is named, with the way to get it; that is an error only where every test must run (CI).
set -eu
cd "$(dirname "$0")/../.."
. lib/setup/common.sh

package_of() {
    case $1 in
        redis) echo redis-server ;;
        postgres) echo postgresql ;;
        rabbitmq) echo rabbitmq-server ;;
        mysql) echo mariadb-server ;;
        nats) echo nats-server ;;
        beanstalkd) echo beanstalkd ;;
        prometheus) echo prometheus ;;
        strace) echo strace ;;
        browser) echo chromium fonts-dejavu-core ;;
        *) die "unknown program '$1'; known: redis, postgres, rabbitmq, mysql, nats, beanstalkd, prometheus, strace, browser" ;;
    esac
}

is_here() {
    if [ -n "$(printenv "IMQUEUE_$(echo "$1" | tr '[:lower:]' '[:upper:]')_URL")" ]; then return; fi
    case $1 in
        postgres) command -v postgres && command -v initdb ;;
        mysql) command -v mariadbd && command -v mariadb-install-db ;;
        browser) command -v chromium || command -v chromium-browser || command -v google-chrome ;;
        *) command -v "$(package_of "$1")" ;;
    esac >/dev/null
}

look() {
    missing="" packages=""
    # Where programs lie that are not on an ordinary user's PATH.
    for folder in /usr/lib/postgresql/*/bin /usr/lib/rabbitmq/bin /usr/sbin "${CONDA_PREFIX:-/usr}/bin"; do
        PATH=$PATH:$folder
    done
    for kind; do
        package=$(package_of "$kind")
        is_here "$kind" || { missing="$missing $kind" packages="$packages $package"; }
    done
}

look "$@"
if [ -z "$missing" ]; then exit 0; fi
if may_apt; then
    say "installing$packages (about a minute; no service is started)"
    # shellcheck disable=SC2086
    timed "install$missing" apt $packages || true
    look "$@"
    if [ -z "$missing" ]; then exit 0; fi
fi
say "left out:$missing. To have what is missing, one of:"
if [ -e /etc/debian_version ]; then say "    sudo sh lib/setup/apt.sh$packages"; fi
if [ "$missing" != " browser" ] && [ "$missing" != " strace" ]; then
    say "    conda env create -f environment.yml && conda activate im-queue   (but not mysql, nats, beanstalkd)"
    say "    your own servers or Docker's, see docker/compose.yaml"
fi
[ -z "${CI:-}${IMQUEUE_REQUIRE:-}" ] || die "and under CI nothing may be left out"
