#!/bin/sh
# apt.sh PACKAGE...: installs Debian packages, as root. Of the servers among them none is started, now or at the
# next boot: im-queue runs its own, privately. What it changes for that is put back, also when the install fails.
set -eu

root=${DPKG_ROOT:-}
policy=$root/usr/sbin/policy-rc.d
kept=$policy.before-imqueue
cluster=$root/etc/postgresql-common/createcluster.d/imqueue.conf
mark='# im-queue: no service starts while it installs packages'
log=$(mktemp)

put_back() {
    if grep -qsF "$mark" "$policy"; then rm -f "$policy"; fi
    if [ -e "$kept" ]; then mv "$kept" "$policy"; fi
    rm -f "$cluster" "$log"
    rmdir "${cluster%/*}" "${cluster%/*/*}" 2>/dev/null || true
}

hold_services() {
    if [ -e "$policy" ]; then mv "$policy" "$kept"; fi
    cat >"$policy" <<END
#!/bin/sh
$mark
if kill -0 $$ 2>/dev/null; then exit 101; fi  # harmless should it be left behind
if [ -x "$kept" ]; then exec "$kept" "\$@"; fi
END
    chmod 755 "$policy"
    # Without this postgresql would also make an empty database cluster of its own, which nobody asked for.
    mkdir -p "${cluster%/*}"
    echo 'create_main_cluster = false' >"$cluster"
}

unit_exists() { [ -e "$root/lib/systemd/system/$1.service" ] || [ -e "$root/etc/init.d/$1" ]; }

disable() {
    update-rc.d "$1" disable || true # also where there is no systemd
    rm -f "$root"/etc/systemd/system/*.wants/"$1".service "$root"/etc/systemd/system/*.wants/"$1".socket
}

install() {
    apt-get -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 -qq install -y --no-install-recommends "$@" >>"$log" 2>&1
}

export DEBIAN_FRONTEND=noninteractive
mkdir -p "$root/run/lock"
exec 9>"$root/run/lock/imqueue-apt"
flock -w 600 9
put_back # what an earlier run left when it was killed
trap put_back EXIT
trap 'exit 1' HUP INT TERM

new=
for service in redis-server postgresql rabbitmq-server epmd mariadb nats-server beanstalkd prometheus; do
    unit_exists "$service" || new="$new $service"
done
hold_services
# Package lists that are missing or too old show as a failure; only then is it worth fetching them.
if ! install "$@" && ! { apt-get -qq update >>"$log" 2>&1 && install "$@"; }; then
    tail -n 15 "$log" >&2
    exit 1
fi
for service in $new; do
    if unit_exists "$service"; then disable "$service" >>"$log" 2>&1; fi
done
