#!/usr/bin/env bash
# A CNI DEL runs the plugins that are configured now, not those whose ADD ran.
#
# Expected: DEL mirrors the ADD of the same container: the same plugins in reverse order. libcni seems made
#   for it, as it keeps the configuration of each ADD in its cache, next to the result.
# Really: libcni reads that copy neither for a DEL nor for a GC. They walk the list that the runtime passes
#   in, which is the one on disk now. A plugin that joined the list is asked to take down what it never set
#   up, and is given the result of a chain that it was not in; one that left the list is never asked
#   again, so what it set up stays. An ADD that fails half-way takes nothing down. A later DEL runs the
#   whole list, also the plugins that were never reached, and without a result, as a failed ADD has none.
#   A DEL ends at the first plugin that fails: those before it in the list, with the interface and its
#   address, are not asked.
# Seen: github.com/containernetworking/cni v1.3.1 (libcni, cnitool), with plugins that only note their calls.
# Since: the copy is in the cache since v0.8.0. That a DEL ends at the first failure, and gets the result
#   of the ADD, is in the specification (version 1.1.0, section 3); that it may meet another list is not.
# For Ringfence: a CNI call is a hint and no proof. Fences follow the interfaces and the inventory, and there
#   is no CNI plugin of Ringfence's own. One that joins a chain must accept the DEL of a container that it
#   never saw, must not fail there, must not need a result, and must find by itself what it missed while
#   it was not in the list.
#
# Needs: root, util-linux, Go 1.25 or later with access to its module proxy.
# Exit status: 0 as described, 1 the behaviour has changed, 2 cannot run.
set -euo pipefail

cannot() { echo "cannot run: $*" >&2; exit 2; }
changed() { echo "changed: $*"; exit 1; }

# Writes the list of plugins that is configured from now on.
configure() { # PLUGIN…
    local plugin plugins=
    for plugin; do
        plugins+="${plugins:+,}{\"type\":\"$plugin\"}"
    done
    echo "{\"cniVersion\":\"1.1.0\",\"name\":\"finding\",\"plugins\":[$plugins]}" \
        >"$work/config/finding.conflist"
}

# Calls cnitool as a runtime would call libcni, and compares the calls that the plugins saw; a plugin that
# was given the result of an ADD has a star.
expect() { # WHAT COMMAND CONTAINER CALLS
    local saw outcome=ok
    : >"$work/calls"
    "$work/cnitool" "$2" finding "/container/$3" >"$work/output" 2>&1 || outcome=failed
    saw=$(paste -sd ' ' "$work/calls")
    printf '%-58s %-6s %s\n' "$1" "$outcome" "${saw:-no call}"
    [[ "$outcome $saw" == "$4" ]] || changed "expected $4"
}

measure() {
    # The cache is below /var/lib: here, one that goes with the namespace.
    mount -t tmpfs none /var/lib
    export CNI_PATH="$work/plugins" NETCONFPATH="$work/config" FINDING="$work"
    mkdir "$work/plugins" "$work/config"
    cat >"$work/plugins/one" <<'PLUGIN'
#!/bin/sh
name=${0##*/}
config=$(cat)
case $CNI_COMMAND in
VERSION)
    echo '{"cniVersion":"1.1.0","supportedVersions":["1.0.0","1.1.0"]}'
    exit
    ;;
esac
case $config in
*'"prevResult"'*) star='*' ;;
*) star= ;;
esac
echo "$name.$CNI_COMMAND$star" >>"$FINDING/calls"
if [ -e "$FINDING/fail.$name.$CNI_COMMAND" ]; then
    echo '{"cniVersion":"1.1.0","code":100,"msg":"told to fail"}'
    exit 1
fi
[ "$CNI_COMMAND" != ADD ] || echo '{"cniVersion":"1.1.0","ips":[{"address":"192.0.2.7/24"}]}'
PLUGIN
    chmod +x "$work/plugins/one"
    ln -s one "$work/plugins/two"
    ln -s one "$work/plugins/three"

    echo "github.com/containernetworking/cni $(go version -m "$work/cnitool" | awk '$1 == "mod" { print $3 }')"
    configure one two
    expect "list: one, two" add a "ok one.ADD two.ADD*"
    expect "nothing changed" del a "ok two.DEL* one.DEL*"

    expect "list: one, two" add b "ok one.ADD two.ADD*"
    configure one two three
    expect "three joins the list" del b "ok three.DEL* two.DEL* one.DEL*"

    configure one two
    expect "list: one, two" add c "ok one.ADD two.ADD*"
    configure one
    grep -qo 'finding-cnitool.*eth0' <(ls /var/lib/cni/results) || changed "no cache of the ADD"
    local kept
    kept=$(sed 's/.*"config":"\([^"]*\)".*/\1/' /var/lib/cni/results/* | base64 -d)
    printf '%-58s        %s\n' "two leaves the list; in the cache there is still" \
        "$(grep -o '"type":"[a-z]*"' <<<"$kept" | cut -d '"' -f 4 | paste -sd ' ')"
    [[ $kept == *'"two"'* ]] || changed "the cache does not know the configuration of the ADD"
    expect "two leaves the list" del c "ok one.DEL*"

    configure one two three
    touch "$work/fail.two.ADD"
    expect "list: one, two (fails), three" add d "failed one.ADD two.ADD*"
    rm "$work/fail.two.ADD"
    expect "after the failed ADD" del d "ok three.DEL two.DEL one.DEL"

    expect "list: one, two, three" add e "ok one.ADD two.ADD* three.ADD*"
    touch "$work/fail.three.DEL"
    expect "the last one fails" del e "failed three.DEL*"
    rm "$work/fail.three.DEL"
    echo "as described: a DEL runs the list of today, as far as nothing fails"
}

if [[ ${1-} == inside ]]; then
    work=$2
    measure
    exit
fi
[[ $EUID -eq 0 ]] || cannot "needs root"
for tool in go unshare; do
    command -v "$tool" >/dev/null || cannot "needs $tool"
done
self=$(realpath "$0")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
GOPATH="$work/go" GOFLAGS="-modcacherw -trimpath" GOBIN="$work" \
    go install github.com/containernetworking/cni/cnitool@v1.3.1 || cannot "the build failed"
unshare --mount bash "$self" inside "$work"
