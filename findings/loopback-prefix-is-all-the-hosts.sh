#!/usr/bin/env bash
# Every address of an IPv4 prefix on the loopback device is the host's, of other devices and of IPv6 one is.
#
# Expected: `ip addr add 198.51.100.1/24 dev lo` gives the host one address, as on any other device; the
#   prefix length says what is on the link. `ip addr`, and netlink's list of addresses, is the whole answer
#   to "which addresses are this host's?".
# Really: on lo the prefix becomes a route of type `local`. All 256 addresses are the host's: its sockets
#   accept connections to each of them from other hosts, though no list of addresses has them. With IPv6, or
#   on another device, only the address itself is.
# Seen: Linux 6.18, iproute2 6.1.0.
# Since: always; fib_add_ifaddr (net/ipv4/fib_frontend.c) adds the prefix as RTN_LOCAL if the device has
#   IFF_LOOPBACK. This is how 127.0.0.0/8 works.
# For Ringfence: what a rule for the host, or for everything but the host, means. Prefixes of addresses on
#   loopback devices are the node's as a whole (ADR 26 in docs/adr).
#
# Needs: root, iproute2, util-linux, python3.
# Exit status: 0 as described, 1 the behaviour has changed, 2 cannot run.
set -euo pipefail

cannot() { echo "cannot run: $*" >&2; exit 2; }
changed() { echo "changed: $*"; exit 1; }

# In namespaces of its own, which end with it: a host with a server, and a far end that routes everything to it.
link() {
    unshare --net sleep 600 &
    local sleeper=$!
    while [[ $(readlink "/proc/$sleeper/ns/net") == "$(readlink /proc/self/ns/net)" ]]; do
        sleep 0.05
    done
    far=(nsenter --net="/proc/$sleeper/ns/net")
    ip link set lo up
    ip link add near type veth peer name far netns "$sleeper"
    ip link add other type veth peer name peer
    ip link set other up
    ip link set peer up
    ip addr add 192.0.2.1/24 dev near
    ip addr add 2001:db8:1::1/64 dev near nodad
    ip link set near up
    "${far[@]}" ip addr add 192.0.2.2/24 dev far
    "${far[@]}" ip addr add 2001:db8:1::2/64 dev far nodad
    "${far[@]}" ip link set far up
    "${far[@]}" ip route add default via 192.0.2.1
    "${far[@]}" ip route add default via 2001:db8:1::1
    : >"$work/server"
    python3 -c '
import socket
server = socket.create_server(("::", 7000), family=socket.AF_INET6, dualstack_ipv6=True)
print("ready", flush=True)
while True:
    server.accept()[0].close()
' >"$work/server" &
    # shellcheck disable=SC2064
    trap "kill $sleeper $!" EXIT
    until grep -q ready "$work/server"; do sleep 0.05; done
}

connects() { # ADDRESS
    "${far[@]}" python3 -c '
import socket, sys
try:
    socket.create_connection((sys.argv[1], 7000), timeout=1).close()
    print("accepted")
except OSError:
    print("not accepted")
' "$1"
}

expect() { # WHAT ADDRESS WANTED
    local got listed=unlisted
    got=$(connects "$2")
    ! ip -o addr show | grep -qF " $2/" || listed=listed
    printf '%-58s %-18s %-9s %s\n' "$1" "$2" "$listed" "$got"
    [[ "$listed $got" == "$3" ]] || changed "expected $3"
}

measure() {
    link
    echo "Linux $(uname -r), $(ip -V)"
    expect "control: before" 198.51.100.77 "unlisted not accepted"
    ip addr add 203.0.113.1/24 dev other
    expect "203.0.113.1/24 on another device: the address" 203.0.113.1 "listed accepted"
    expect "  its neighbour in the prefix" 203.0.113.77 "unlisted not accepted"
    ip addr add 198.51.100.1/24 dev lo
    expect "198.51.100.1/24 on lo: the address" 198.51.100.1 "listed accepted"
    expect "  its neighbour in the prefix" 198.51.100.77 "unlisted accepted"
    ip addr add 2001:db8:2::1/64 dev lo
    expect "2001:db8:2::1/64 on lo: the address" 2001:db8:2::1 "listed accepted"
    expect "  its neighbour in the prefix" 2001:db8:2::77 "unlisted not accepted"
    echo "as described: an IPv4 prefix on lo is the host's as a whole"
}

if [[ ${1-} == inside ]]; then
    work=$2
    measure
    exit
fi
[[ $EUID -eq 0 ]] || cannot "needs root"
for tool in ip unshare nsenter python3; do
    command -v "$tool" >/dev/null || cannot "needs $tool"
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unshare --net bash "$(realpath "$0")" inside "$work"
