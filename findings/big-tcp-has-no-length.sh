#!/usr/bin/env bash
# With BIG TCP, packets reach TC hooks whose IP length is 0 and whose TCP header is not where it was.
#
# Expected: the length in the IP header is the length of the packet, as far as a packet of up to 64 KiB
#   goes, and nothing longer can exist, because the fields have 16 bits. A TCP segment without options in
#   IPv6 begins 40 bytes behind the IPv6 header, because no socket asked for an extension header.
# Really: an administrator, or a CNI plugin, may raise gso_max_size and gso_ipv4_max_size of an interface.
#   TCP then builds packets of up to 512 KiB for it, to be cut later. In IPv4 their total length is 0. In
#   IPv6 the payload length is 0, and the kernel itself puts a hop-by-hop header with the jumbo option
#   (8 bytes) between IPv6 and TCP, to take it off again when it cuts. TC programs, also those at the
#   host's side of a workload's veth, see the packets so; what is cut for a wire has neither.
# Seen: Linux 6.18; loader github.com/cilium/ebpf v0.22.0, sizes set with
#   github.com/vishvananda/netlink v1.3.1.
# Since: IPv6 Linux 5.19, IPv4 Linux 6.3 (commit b1a78b9b9886).
# For Ringfence: "the lengths must agree" would drop every large packet of such a workload, and only
#   these: connections open and then stall. A length of 0 is accepted where gso_size says that the kernel
#   will cut the packet (Frame::is_gso), the hop-by-hop header is stepped over like any other, and
#   everywhere else a length of 0 and a jumbogram are refused.
#
# Needs: root, iproute2, util-linux, Go 1.25 or later with access to its module proxy.
# Exit status: 0 as described, 1 the behaviour has changed, 2 cannot run.
set -euo pipefail

cannot() { echo "cannot run: $*" >&2; exit 2; }
changed() { echo "changed: $*"; exit 1; }

# In namespaces of its own, which end with it: a link from a host to a workload, which sends.
link() {
    unshare --net sleep 600 &
    local sleeper=$!
    # shellcheck disable=SC2064
    trap "kill $sleeper" EXIT
    while [[ $(readlink "/proc/$sleeper/ns/net") == "$(readlink /proc/self/ns/net)" ]]; do
        sleep 0.05
    done
    workload=(nsenter --net="/proc/$sleeper/ns/net")
    ip link add host type veth peer name eth0 netns "$sleeper"
    ip addr add 192.0.2.1/24 dev host
    ip addr add 2001:db8::1/64 dev host nodad
    ip link set host up
    "${workload[@]}" ip addr add 192.0.2.2/24 dev eth0
    "${workload[@]}" ip addr add 2001:db8::2/64 dev eth0 nodad
    "${workload[@]}" ip link set eth0 up
}

# Sends 64 MiB from the workload and reads what the largest packet at TC ingress of the host's end was.
transfer() { # WHAT ADDRESS
    local all
    all=$("$work/finding" receive host "$2" "${workload[@]}" "$work/finding" send "$2") || cannot "$1"
    read -r length field next gso <<<"$all"
    printf '%-26s %7d bytes to count, length field %5d, next header %d, gso_size %d\n' \
        "$1" "$length" "$field" "$next" "$gso"
}

measure() {
    link
    echo "Linux $(uname -r); the largest packet at TC ingress of the host's end:"
    transfer "IPv4, as it comes:" 192.0.2.1
    ((length > 40000 && length == field && next == 6)) || changed "expected lengths that agree, up to 64 KiB"
    transfer "IPv6, as it comes:" 2001:db8::1
    ((length > 40000 && length == field && next == 6)) || changed "expected lengths that agree, up to 64 KiB"

    "${workload[@]}" "$work/finding" sizes eth0 185000
    transfer "IPv4, BIG TCP of 185000:" 192.0.2.1
    ((length > 65535 && field == 0 && next == 6 && gso > 0)) || changed "expected a length of 0"
    transfer "IPv6, BIG TCP of 185000:" 2001:db8::1
    ((length > 65535 && field == 0 && next == 0 && gso > 0)) ||
        changed "expected a payload length of 0 and a hop-by-hop header"
    echo "as described: large packets have an IP length of 0, in IPv6 after a header that no socket requested"
}

if [[ ${1-} == inside ]]; then
    work=$2
    measure
    exit
fi
[[ $EUID -eq 0 ]] || cannot "needs root"
for tool in go ip unshare nsenter; do
    command -v "$tool" >/dev/null || cannot "needs $tool"
done
self=$(realpath "$0")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export GOPATH="$work/go" GOFLAGS="-mod=mod -modcacherw -trimpath"
mkdir "$work/src"
cd "$work/src"
cat >go.mod <<'MOD'
module finding

go 1.25

require (
	github.com/cilium/ebpf v0.22.0
	github.com/vishvananda/netlink v1.3.1
)
MOD
cat >main.go <<'GO'
package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
)

const (
	port    = "7000"
	offLen  = 0   // skb->len
	offGSO  = 176 // skb->gso_size
	ethLen  = 14
	headLen = 54 // Ethernet and IPv6, or IPv4 with 20 bytes of what follows
)

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "cannot run:", err)
		os.Exit(2)
	}
}

// Keeps length, gso_size and head of the largest TCP packet that comes in.
func watch(device string) *ebpf.Map {
	largest, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 64, MaxEntries: 1})
	check(err)
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "largest", Type: ebpf.SchedCLS, License: "GPL", Instructions: asm.Instructions{
			asm.Mov.Reg(asm.R6, asm.R1),
			asm.LoadMapValue(asm.R7, largest.FD(), 0),
			asm.LoadMem(asm.R8, asm.R6, offLen, asm.Word),
			asm.LoadMem(asm.R1, asm.R7, 0, asm.Word),
			asm.JLE.Reg(asm.R8, asm.R1, "out"),
			asm.Mov.Reg(asm.R1, asm.R6),
			asm.Mov.Imm(asm.R2, 0),
			asm.Mov.Reg(asm.R3, asm.R7),
			asm.Add.Imm(asm.R3, 8),
			asm.Mov.Imm(asm.R4, headLen),
			asm.FnSkbLoadBytes.Call(),
			asm.JNE.Imm(asm.R0, 0, "out"),
			asm.StoreMem(asm.R7, 0, asm.R8, asm.Word),
			asm.LoadMem(asm.R1, asm.R6, offGSO, asm.Word),
			asm.StoreMem(asm.R7, 4, asm.R1, asm.Word),
			asm.Mov.Imm(asm.R0, -1).WithSymbol("out"), // TC_ACT_UNSPEC
			asm.Return(),
		},
	})
	check(err)
	device0, err := net.InterfaceByName(device)
	check(err)
	_, err = link.AttachTCX(link.TCXOptions{
		Interface: device0.Index, Program: program, Attach: ebpf.AttachTCXIngress,
	})
	check(err)
	return largest
}

func receive(device, address string, sender []string) {
	largest := watch(device)
	listener, err := net.Listen("tcp", net.JoinHostPort(address, port))
	check(err)
	command := exec.Command(sender[0], sender[1:]...)
	command.Stderr = os.Stderr
	check(command.Start())
	connection, err := listener.Accept()
	check(err)
	_, err = io.Copy(io.Discard, connection)
	check(err)
	check(command.Wait())
	var value [64]byte
	check(largest.Lookup(uint32(0), &value))
	length := binary.NativeEndian.Uint32(value[:]) - ethLen
	gso := binary.NativeEndian.Uint32(value[4:])
	ip := value[8+ethLen:]
	field, next := binary.BigEndian.Uint16(ip[2:]), ip[9]
	if ip[0]>>4 == 6 {
		// It does not count the header itself.
		length -= 40
		field, next = binary.BigEndian.Uint16(ip[4:]), ip[6]
	}
	fmt.Println(length, field, next, gso)
}

func send(address string) {
	connection, err := net.Dial("tcp", net.JoinHostPort(address, port))
	check(err)
	block := make([]byte, 4<<20)
	for range 16 {
		_, err = connection.Write(block)
		check(err)
	}
	check(connection.Close())
}

func sizes(device, size string) {
	found, err := netlink.LinkByName(device)
	check(err)
	bytes, err := strconv.Atoi(size)
	check(err)
	check(netlink.LinkSetGSOMaxSize(found, bytes))
	check(netlink.LinkSetGSOIPv4MaxSize(found, bytes))
}

func main() {
	switch os.Args[1] {
	case "receive":
		receive(os.Args[2], os.Args[3], os.Args[4:])
	case "send":
		send(os.Args[2])
	case "sizes":
		sizes(os.Args[2], os.Args[3])
	}
}
GO
go build -o "$work/finding" . || cannot "the build failed"
cd /
unshare --mount --net bash "$self" inside "$work"
