#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Puts everything that a package of cgnetd has below ROOT, from this checkout: the one list of it, for every kind of package.
# Not what only a kind of package knows: documentation, examples, licences, modules that the distribution lacks.
#
#   packaging/install.sh ROOT OBJECTS INTERPRETER [UNITS]
#
# OBJECTS      the directory with the built programs of the kernel side
# INTERPRETER  the Python that the commands run by
# UNITS        where units go, below ROOT; default /usr/lib/systemd/system
# In the environment: NOTIFY_RELOAD=no for systemd older than 253; ZSH_COMPLETIONS, default /usr/share/zsh/vendor-completions
set -eu
root=$1 objects=$2 interpreter=$3 units=${4:-/usr/lib/systemd/system}
top=$(dirname "$(dirname "$(readlink -f "$0")")")
python=/usr/lib/cgnetd/python

# put DIRECTORY FILE...: readable files, into a directory that is made.
put() {
    to=$root$1
    shift
    install -d -m 755 "$to"
    install -m 644 -t "$to" "$@"
}

# A command that calls MODULE.main. Isolated from the caller's environment and directory, for root runs it; writes no
# compiled files, for those would stay behind when the package goes.
command_of() {
    install -d -m 755 "$root/usr/bin"
    cat >"$root/usr/bin/$1" <<END
#!$interpreter -IB
# SPDX-License-Identifier: Apache-2.0
import sys

sys.path.insert(0, "$python")

from $2 import main

sys.exit(main())
END
    chmod 755 "$root/usr/bin/$1"
}

# Sources alone: what the checkout has beside them was built for other places.
modules() {
    (cd "$top/daemon" && find "$1" \( -name '*.py' -o -name py.typed \) -type f) | while read -r file; do
        install -D -m 644 "$top/daemon/$file" "$root$python/$file"
    done
}

modules cgnetd
modules pybpf
for source in "$top"/bpf/*.bpf.c; do
    object=$(basename "${source%.c}").o
    case $object in
        *_test.bpf.o) ;; # loaded by tests alone
        *) put $python/cgnetd/kernel/objects "$objects/$object" ;;
    esac
done
command_of cgnetd cgnetd.cli.daemon
command_of cgnetctl cgnetd.cli.ctl

put /etc/cgnetd "$top/config/cgnetd.yaml"
install -d -m 755 "$root/etc/cgnetd/cgnetd.yaml.d" "$root/etc/cgnetd/policy.d" "$root/etc/cgnetd/sets" \
    "$root/usr/lib/cgnetd/policy.d"
put /usr/share/cgnetd "$top"/config/*.schema.json

for unit in "$top"/packaging/systemd/*.service "$top"/packaging/systemd/*.socket; do
    [ ! -e "$unit" ] || put "$units" "$unit"
done
[ "${NOTIFY_RELOAD-}" = no ] || put "$units/cgnetd.service.d" "$top/packaging/systemd/notify-reload.conf"
put /usr/lib/tmpfiles.d "$top"/packaging/tmpfiles.d/*.conf
put /usr/lib/sysusers.d "$top"/packaging/sysusers.d/*.conf
put /usr/lib/systemd/catalog "$top"/packaging/catalog/*.catalog

for page in "$top"/packaging/man/*.[1-8]; do
    put "/usr/share/man/man${page##*.}" "$page"
done
install -D -m 644 "$top/packaging/completions/cgnetctl.bash" "$root/usr/share/bash-completion/completions/cgnetctl"
put "${ZSH_COMPLETIONS:-/usr/share/zsh/vendor-completions}" "$top/packaging/completions/_cgnetctl"
put /usr/share/fish/vendor_completions.d "$top/packaging/completions/cgnetctl.fish"
