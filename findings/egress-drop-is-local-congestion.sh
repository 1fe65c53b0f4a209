#!/usr/bin/env bash
# A packet of a local socket that a BPF program drops at TC egress counts as congestion of this host.
#
# Expected: to its sender, a packet dropped on the way out looks like one that was lost on the way. A
#   connection attempt continues for the same two minutes, with longer and longer pauses, and datagrams
#   vanish silently.
# Really: TC_ACT_SHOT at egress becomes NET_XMIT_DROP, the answer of a full queue. TCP takes the
#   retransmission as not sent, tries again every half second without any backoff, and gives up when
#   the number of tries is used up: with default settings after 6 seconds, not after 131. A UDP or raw
#   socket with IP_RECVERR (ping sets it) is told ENOBUFS, "No buffer space available"; without it
#   sendto reports success. The drop shows as TcpExtTCPRetransFail, UdpSndbufErrors and IpOutDiscards,
#   and nowhere at the device. The same program at the ingress of the far end has none of these effects.
# Seen: Linux 6.18, iproute2 6.1.0, loader github.com/cilium/ebpf v0.22.0.
# Since: Linux 4.5, with the egress hook of clsact; what TCP does then is in tcp_retransmit_timer
#   (TCP_RESOURCE_PROBE_INTERVAL). The 131 seconds are those of the kernel's ip-sysctl documentation.
# For Ringfence: what a workload sends is dropped at TC ingress of its interface, where the workload sees a
#   plain loss. What the node's own sockets send to a workload meets its hook at TC egress, and a drop
#   there in lockdown: then a probe from the node fails within seconds, ping reports a lack of
#   buffers though memory is not short, and an early time-out does not mean that the workload replied.
#
# Needs: root, iproute2 (tc, nstat), util-linux, Go 1.25 or later with access to its module proxy.
# Exit status: 0 as described, 1 the behaviour has changed, 2 cannot run.
set -euo pipefail

cannot() { echo "cannot run: $*" >&2; exit 2; }
changed() { echo "changed: $*"; exit 1; }

# In namespaces of its own, which end with it: a link from near, where the sockets are, to far.
link() {
    unshare --net sleep 600 &
    local sleeper=$! side run
    # shellcheck disable=SC2064
    trap "kill $sleeper" EXIT
    while [[ $(readlink "/proc/$sleeper/ns/net") == "$(readlink /proc/self/ns/net)" ]]; do
        sleep 0.05
    done
    far=(nsenter --net="/proc/$sleeper/ns/net")
    ip link add near type veth peer name far netns "$sleeper"
    for side in near far; do
        run=()
        [[ $side == near ]] || run=("${far[@]}")
        "${run[@]}" bash -c "echo 1 >/proc/sys/net/ipv6/conf/$side/disable_ipv6"
        "${run[@]}" ip link set "$side" up
        "${run[@]}" tc qdisc add dev "$side" clsact
    done
    ip addr add 192.0.2.1/24 dev near
    "${far[@]}" ip addr add 192.0.2.2/24 dev far
    ip neigh replace 192.0.2.2 dev near nud permanent \
        lladdr "$("${far[@]}" ip -br link show far | awk '{ print $3 }')"
}

# How often a SYN is sent again, and how often more, a second apart, before the pauses grow (since Linux
# 6.5).
tries() { # TRIES LINEAR
    echo "$1" >/proc/sys/net/ipv4/tcp_syn_retries
    [[ ! -e /proc/sys/net/ipv4/tcp_syn_linear_timeouts ]] ||
        echo "$2" >/proc/sys/net/ipv4/tcp_syn_linear_timeouts
}

# Runs the probe and keeps its answer: the error and the seconds that passed, in tenths.
probe() { # WHAT ARGUMENTS…
    local what=$1
    shift
    read -r error tenths < <("$work/probe" "$@") || cannot "$what"
    printf '%-62s %-12s after %3d.%d s\n' "$what" "$error" $((tenths / 10)) $((tenths % 10))
}

counter() {
    nstat -asz "$1" | awk -v name="$1" '$1 == name { print $2 }'
}

measure() {
    mount -t bpf bpf "$work/bpf"
    "$work/probe" load "$work/bpf/drop"
    link
    echo "Linux $(uname -r), $(tc -V)"
    probe "no filter, no listener: connect" connect
    [[ $error == ECONNREFUSED ]] || changed "expected a refusal"
    local drop=(protocol all bpf direct-action object-pinned "$work/bpf/drop")

    tries 2 0
    "${far[@]}" tc filter add dev far ingress "${drop[@]}"
    probe "dropped at ingress of the far end: connect, 2 more tries" connect
    local remote=$tenths
    [[ $error == ETIMEDOUT && $remote -ge 60 ]] || changed "expected a time-out of 7 seconds"
    probe "dropped at ingress of the far end: UDP with IP_RECVERR" udp errors
    [[ $error == none ]] || changed "expected no error"
    [[ $(counter TcpExtTCPRetransFail) == 0 ]] || changed "a loss on the way counts as a failed retransmission"
    "${far[@]}" tc filter del dev far ingress

    tc filter add dev near egress "${drop[@]}"
    probe "dropped at egress of the near end: connect, 2 more tries" connect
    [[ $error == ETIMEDOUT ]] || changed "expected a time-out"
    ((tenths * 2 < remote)) || changed "expected less than half the time"
    tries 6 4
    probe "dropped at egress of the near end: connect, default tries" connect
    [[ $error == ETIMEDOUT ]] || changed "expected a time-out"
    ((tenths >= 35 && tenths <= 90)) || changed "expected 4 to 6 seconds"
    probe "dropped at egress of the near end: UDP" udp
    [[ $error == none ]] || changed "expected no error"
    probe "dropped at egress of the near end: UDP with IP_RECVERR" udp errors
    [[ $error == ENOBUFS ]] || changed "expected ENOBUFS"
    probe "dropped at egress of the near end: ICMP echo with IP_RECVERR" icmp errors
    [[ $error == ENOBUFS ]] || changed "expected ENOBUFS"

    local name
    for name in TcpExtTCPRetransFail UdpSndbufErrors IpOutDiscards; do
        printf '%-62s %s\n' "$name" "$(counter "$name")"
        [[ $(counter "$name") -gt 0 ]] || changed "$name does not count"
    done
    local dropped
    dropped=$(ip -s -s link show near | awk '/TX:/ { getline; print $4 }')
    printf '%-62s %s\n' "dropped packets of the device, sending" "$dropped"
    [[ $dropped == 0 ]] || changed "the device counts the drops"
    echo "as described: an egress drop is local congestion to its sender"
}

if [[ ${1-} == inside ]]; then
    work=$2
    measure
    exit
fi
[[ $EUID -eq 0 ]] || cannot "needs root"
for tool in go ip tc nstat unshare nsenter; do
    command -v "$tool" >/dev/null || cannot "needs $tool"
done
self=$(realpath "$0")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export GOPATH="$work/go" GOFLAGS="-mod=mod -modcacherw -trimpath"
mkdir "$work/src" "$work/bpf"
cd "$work/src"
cat >go.mod <<'MOD'
module finding

go 1.25

require (
	github.com/cilium/ebpf v0.22.0
	golang.org/x/sys v0.43.0
)
MOD
cat >main.go <<'GO'
package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "cannot run:", err)
		os.Exit(2)
	}
}

// Pins a program that drops everything.
func load(path string) {
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "drop", Type: ebpf.SchedCLS, License: "GPL", Instructions: asm.Instructions{
			asm.Mov.Imm(asm.R0, 2), // TC_ACT_SHOT
			asm.Return(),
		},
	})
	check(err)
	check(program.Pin(path))
}

func connect(to unix.Sockaddr) error {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	check(err)
	for {
		// A signal of Go's own does not end the attempt.
		if err = unix.Connect(socket, to); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func send(kind, protocol, errorsWanted int, payload []byte, to unix.Sockaddr) error {
	socket, err := unix.Socket(unix.AF_INET, kind, protocol)
	check(err)
	check(unix.SetsockoptInt(socket, unix.IPPROTO_IP, unix.IP_RECVERR, errorsWanted))
	return unix.Sendto(socket, payload, 0, to)
}

func main() {
	if os.Args[1] == "load" {
		load(os.Args[2])
		return
	}
	var err error
	wanted := 0
	if len(os.Args) > 2 {
		wanted = 1
	}
	to := &unix.SockaddrInet4{Port: 7, Addr: [4]byte{192, 0, 2, 2}}
	start := time.Now()
	switch os.Args[1] {
	case "connect":
		err = connect(to)
	case "udp":
		err = send(unix.SOCK_DGRAM, 0, wanted, []byte("x"), to)
	case "icmp":
		// Echo request, checksum, identifier 0, sequence 0.
		err = send(unix.SOCK_RAW, unix.IPPROTO_ICMP, wanted, []byte{8, 0, 0xf7, 0xff, 0, 0, 0, 0}, to)
	}
	name := "none"
	var errno unix.Errno
	if errors.As(err, &errno) {
		name = unix.ErrnoName(errno)
	}
	fmt.Println(name, time.Since(start).Milliseconds()/100)
}
GO
go build -o "$work/probe" . || cannot "the build failed"
cd /
unshare --mount --net bash "$self" inside "$work"
