# Installs packages without starting their services. Run as root: sh packages.sh POLICY LOCK PACKAGE…
#
# Debian's tools ask the program POLICY before they start a service. While packages are installed, a POLICY of ours
# says no; afterwards the machine's own is put back. Ours says no only while LOCK is held, and the kernel lets go of
# LOCK when the last process of this run ends, so a run that was killed leaves a POLICY that asks the machine's own,
# and the next run tidies it away.
set -eu
policy=$1
lock=$2
shift 2
saved=$policy.before-tenk
mark='tenk: no services while test packages are installed'

exec 9>"$lock"
flock 9

put_back() {
    if [ -e "$saved" ]; then
        mv -f "$saved" "$policy"
    elif grep -qs "$mark" "$policy"; then
        rm -f "$policy"
    fi
}

# What a killed run may have left.
put_back

says_no() {
    [ -x "$policy" ] || return 1
    code=0
    "$policy" tenk start >/dev/null 2>&1 || code=$?
    [ "$code" = 101 ]
}

if ! says_no; then
    trap put_back EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    cat >"$policy.tenk-new" <<END
#!/bin/sh
# $mark
flock --nonblock "$lock" true || exit 101
[ ! -x "$saved" ] || exec "$saved" "\$@"
exit 0
END
    chmod 755 "$policy.tenk-new"
    if [ -e "$policy" ]; then
        cp -p "$policy" "$saved"
    fi
    mv -f "$policy.tenk-new" "$policy"
fi

export DEBIAN_FRONTEND=noninteractive
apt-get update
apt-get install --yes --no-install-recommends "$@"

# A service that was not started now must not start at the next boot either.
if [ -d /run/systemd/system ]; then
    for package in "$@"; do
        systemctl disable "$package" >/dev/null 2>&1 || true
    done
fi
