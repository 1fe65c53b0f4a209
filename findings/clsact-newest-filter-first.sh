#!/usr/bin/env bash
# BPF filters of one preference on a clsact qdisc run newest first, whatever their handles are.
#
# Expected: filters of one preference run in the order of their handles, or in the order in which
#   they were added; the oldest filter, or the one with the lowest handle, decides first.
# Really: cls_bpf puts a new filter at the head of the list that it walks for every packet. The handle
#   only names the filter. So the filter added last decides first, and if it passes the packet
#   (TC_ACT_OK) or drops it, the older ones never see it. `tc filter replace` of a handle that exists
#   keeps its place. Between preferences the lower one runs first, as documented. `tc filter show`
#   prints the filters in the order in which they run.
# Seen: Linux 6.18, iproute2 6.1.0, loader github.com/cilium/ebpf v0.22.0; the order also on Linux 6.1.
# Since: Linux 3.13, with cls_bpf (cls_bpf_change adds with list_add_rcu).
# For Ringfence: where there is no tcx (before Linux 6.6, or `attach = "clsact"`), its filter has
#   preference 1 and a handle of its own. Another's filter of preference 1 that comes later runs before
#   it, and one that returns TC_ACT_OK takes the fence off without touching it. A restart replaces the
#   filter in its place and does not put it in front again.
#
# Needs: root, iproute2 (tc), util-linux, Go 1.25 or later with access to its module proxy.
# Exit status: 0 as described, 1 the behaviour has changed, 2 cannot run.
set -euo pipefail

cannot() { echo "cannot run: $*" >&2; exit 2; }
changed() { echo "changed: $*"; exit 1; }


# In namespaces of its own, which end with it: a link whose near end has the filters, and whose far end,
# in a second namespace, sends. No other traffic is on it.
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
        "${run[@]}" ip link set "$side" arp off up
    done
    "${far[@]}" ip addr add 192.0.2.1/24 dev far
    "${far[@]}" ip neigh add 192.0.2.2 dev far nud permanent \
        lladdr "$(ip -br link show near | awk '{ print $3 }')"
}

fresh() {
    tc qdisc del dev near clsact 2>/dev/null || true
    tc qdisc add dev near clsact
}

filter() { # ACTION PREFERENCE HANDLE PROGRAM
    tc filter "$1" dev near ingress pref "$2" handle "$3" protocol all \
        bpf direct-action object-pinned "$work/bpf/$4"
}

# Sends one packet and compares which programs saw it.
expect() { # WHAT WANTED
    local saw
    "$work/programs" order "$work/bpf" >/dev/null
    "${far[@]}" bash -c 'echo x >/dev/udp/192.0.2.2/9'
    saw=$("$work/programs" order "$work/bpf")
    printf '%-76s %s\n' "$1" "$saw"
    [[ $saw == "$2" ]] || changed "expected $2"
}

measure() {
    mount -t bpf bpf "$work/bpf"
    "$work/programs" load "$work/bpf"
    link
    echo "Linux $(uname -r), $(tc -V)"
    echo "Numbers: which programs saw a packet, first to last; 8 passes it, 9 drops it."
    fresh
    expect "no filter" 0
    filter add 1 1 one
    filter add 1 2 two
    filter add 1 3 three
    expect "preference 1: 1 with handle 1, then 2 with handle 2, then 3 with handle 3" 321
    tc filter show dev near ingress |
        sed -n 's/.*handle \(0x[0-9a-f]*\) \([a-z]*\).*/    tc filter show: handle \1 \2/p'
    fresh
    filter add 1 3 one
    filter add 1 2 two
    filter add 1 1 three
    expect "preference 1: 1 with handle 3, then 2 with handle 2, then 3 with handle 1" 321
    filter replace 1 3 one
    expect "the oldest is replaced by itself" 321
    fresh
    filter add 1 1 one
    filter add 2 1 two
    filter add 3 1 three
    expect "preferences 1, 2 and 3, added in this order" 123
    fresh
    filter add 1 1 drop
    expect "a filter that drops" 9
    filter add 1 99 pass
    expect "then one of the same preference that passes, with a higher handle" 8
    echo "as described: the filter that was added last decides first"
}

if [[ ${1-} == inside ]]; then
    work=$2
    measure
    exit
fi
[[ $EUID -eq 0 ]] || cannot "needs root"
for tool in go ip tc unshare nsenter; do
    command -v "$tool" >/dev/null || cannot "needs $tool"
done
self=$(realpath "$0")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export GOPATH="$work/go" GOFLAGS="-mod=mod -modcacherw -trimpath"
mkdir "$work/src" "$work/bpf"
cd "$work/src"

# Programs one to three write their number behind those of the programs before them and leave the packet
# to the next filter; pass and drop decide.
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
	"fmt"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

const (
	unspecified = -1 // TC_ACT_UNSPEC: the next filter decides
	ok          = 0  // TC_ACT_OK
	shot        = 2  // TC_ACT_SHOT
)

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "cannot run:", err)
		os.Exit(2)
	}
}

func load(folder string) {
	order, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	check(err)
	check(order.Pin(filepath.Join(folder, "order")))
	for _, p := range []struct {
		name           string
		number, answer int32
	}{
		{"one", 1, unspecified}, {"two", 2, unspecified}, {"three", 3, unspecified},
		{"pass", 8, ok}, {"drop", 9, shot},
	} {
		program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
			Name: p.name, Type: ebpf.SchedCLS, License: "GPL", Instructions: asm.Instructions{
				asm.LoadMapValue(asm.R1, order.FD(), 0),
				asm.LoadMem(asm.R2, asm.R1, 0, asm.DWord),
				asm.Mul.Imm(asm.R2, 10),
				asm.Add.Imm(asm.R2, p.number),
				asm.StoreMem(asm.R1, 0, asm.R2, asm.DWord),
				asm.Mov.Imm(asm.R0, p.answer),
				asm.Return(),
			},
		})
		check(err)
		check(program.Pin(filepath.Join(folder, p.name)))
	}
}

// Prints which programs ran since the last call, first to last.
func order(folder string) {
	m, err := ebpf.LoadPinnedMap(filepath.Join(folder, "order"), nil)
	check(err)
	var ran uint64
	check(m.Lookup(uint32(0), &ran))
	check(m.Put(uint32(0), uint64(0)))
	fmt.Println(ran)
}

func main() {
	if os.Args[1] == "load" {
		load(os.Args[2])
	} else {
		order(os.Args[2])
	}
}
GO
go build -o "$work/programs" . || cannot "the build failed"
cd /
unshare --mount --net bash "$self" inside "$work"
