#!/usr/bin/env bash
# A host that forwards IPv6 takes packets to the first address of each prefix, which no list has.
#
# Expected: `ip addr`, and netlink's list of addresses (RTM_GETADDR), has every address to which sockets of the
#   host answer. Anycast addresses are something that an administrator sets up.
# Really: with forwarding on, the kernel joins the subnet-router anycast address, the prefix followed by zeros,
#   for every address shorter than /127 (RFC 4291 section 2.6.1). A server on :: gets datagrams to it from the
#   link, and answers from another address. It shows only in /proc/net/anycast6 and as a route of type `anycast` in the table local. With
#   forwarding off, no host has it. Nodes of a Kubernetes cluster forward.
# Seen: Linux 6.18, iproute2 6.1.0.
# Since: Linux 2.5; addrconf_join_anycast (net/ipv6/addrconf.c).
# For Ringfence: an address list from netlink alone leaves one address of the node in every IPv6 prefix to
#   whatever rule allows the world; the agent derives it (ADR 26 in docs/adr).
#
# Needs: root, iproute2, util-linux, python3.
# Exit status: 0 as described, 1 the behaviour has changed, 2 cannot run.
set -euo pipefail

cannot() { echo "cannot run: $*" >&2; exit 2; }
changed() { echo "changed: $*"; exit 1; }

# In namespaces of its own, which end with it: a host with a server, and a neighbour.
link() {
    unshare --net sleep 600 &
    local sleeper=$!
    while [[ $(readlink "/proc/$sleeper/ns/net") == "$(readlink /proc/self/ns/net)" ]]; do
        sleep 0.05
    done
    far=(nsenter --net="/proc/$sleeper/ns/net")
    ip link add near type veth peer name far netns "$sleeper"
    ip addr add 2001:db8:1::5/64 dev near nodad
    ip link set near up
    "${far[@]}" ip addr add 2001:db8:1::6/64 dev far nodad
    "${far[@]}" ip link set far up
    : >"$work/server"
    python3 -c '
import socket
server = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
server.bind(("::", 7000))
print("ready", flush=True)
while True:
    server.sendto(b"answer", server.recvfrom(64)[1])
' >"$work/server" &
    # shellcheck disable=SC2064
    trap "kill $sleeper $!" EXIT
    until grep -q ready "$work/server"; do sleep 0.05; done
}

expect() { # WHAT ADDRESS WANTED
    local got listed=unlisted
    "${far[@]}" ip -6 neigh flush all
    got=$("${far[@]}" python3 -c '
import socket, sys
client = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
client.settimeout(1)
client.sendto(b"request", (sys.argv[1], 7000))
try:
    print("answered from", client.recvfrom(64)[1][0])
except OSError:
    print("not answered")
' "$2")
    ! ip -6 -o addr show | grep -qF " $2/" || listed=listed
    printf '%-36s %-16s %-9s %s\n' "$1" "$2" "$listed" "$got"
    [[ "$listed $got" == "$3" ]] || changed "expected $3"
}

forward() { echo "$1" >/proc/sys/net/ipv6/conf/all/forwarding; }

measure() {
    link
    echo "Linux $(uname -r), $(ip -V)"
    expect "control: the address" 2001:db8:1::5 "listed answered from 2001:db8:1::5"
    expect "forwarding off: the first address" 2001:db8:1:: "unlisted not answered"
    forward 1
    expect "forwarding on: the first address" 2001:db8:1:: "unlisted answered from 2001:db8:1::5"
    ip -6 route show table local type anycast | sed 's/^/    ip route show table local: /'
    forward 0
    expect "forwarding off again" 2001:db8:1:: "unlisted not answered"
    echo "as described: a host that forwards has an address in each prefix that no list of addresses has"
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
