#!/usr/bin/env bash
# Overwriting a key of a full BPF LRU hash map throws other keys out.
#
# Expected: an update of a key that is there (BPF_EXIST) needs no room, so a full map keeps all its
#   keys. That is so for BPF_MAP_TYPE_HASH.
# Really: in BPF_MAP_TYPE_LRU_HASH the kernel takes a free element for the new value before it looks
#   whether the key is there. A full map has none, so it evicts, and not one key but a batch: 128, or
#   fewer in a map that is small for the number of CPUs. The old element then becomes the spare one of
#   this CPU, so the next overwrites cost nothing until new keys have used the spare elements up. A
#   program that writes through the pointer which bpf_map_lookup_elem gave it evicts nothing.
# Seen: Linux 6.18, with github.com/cilium/ebpf v0.22.0 as the loader.
# Since: Linux 4.10, with the map type. The batch (LOCAL_FREE_TARGET, 128) is limited to half of a
#   CPU's share of the map since commit d4adf1c9ee77 (2025).
# For Ringfence: what must not be lost cannot live in an LRU map, not even if nothing new is added to
#   it, and state that changes with each packet is to be changed in place. Assured flows are
#   in a plain hash map; unreplied entries are rewritten only when they are re-evaluated, and otherwise
#   updated in place.
#
# Needs: root (CAP_BPF, CAP_PERFMON), Go 1.25 or later with access to its module proxy.
# Exit status: 0 as described, 1 the behaviour has changed, 2 cannot run.
set -euo pipefail

cannot() { echo "cannot run: $*" >&2; exit 2; }
[[ $EUID -eq 0 ]] || cannot "needs root"
command -v go >/dev/null || cannot "needs Go"

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
	golang.org/x/sys v0.43.0
)
MOD
cat >main.go <<'GO'
package main

import (
	"fmt"
	"os"
	"runtime"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

const size = 4096

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "cannot run:", err)
		os.Exit(2)
	}
}

func expect(what string, ok bool) {
	if !ok {
		fmt.Println("changed:", what)
		os.Exit(1)
	}
}

// Every step runs on one CPU: each has free elements of its own.
func stayOnOneCPU() {
	runtime.LockOSThread()
	var allowed, one unix.CPUSet
	check(unix.SchedGetaffinity(0, &allowed))
	for cpu := range 1024 {
		if allowed.IsSet(cpu) {
			one.Set(cpu)
			check(unix.SchedSetaffinity(0, &one))
			return
		}
	}
}

func full(kind ebpf.MapType, keys uint32) *ebpf.Map {
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: kind, KeySize: 4, ValueSize: 8, MaxEntries: size})
	check(err)
	for key := range keys {
		check(m.Update(key, uint64(1), ebpf.UpdateNoExist))
	}
	return m
}

func present(m *ebpf.Map) map[uint32]bool {
	found := map[uint32]bool{}
	var key uint32
	var value uint64
	entries := m.Iterate()
	for entries.Next(&key, &value) {
		found[key] = true
	}
	check(entries.Err())
	return found
}

func overwrite(m *ebpf.Map, key uint32, times int) (lost int) {
	before := len(present(m))
	for range times {
		check(m.Update(key, uint64(2), ebpf.UpdateExist))
	}
	return before - len(present(m))
}

// Adds 1 to the value of a key through the pointer that the lookup returns.
func addInPlace(m *ebpf.Map, key uint32) (lost int) {
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.SchedCLS, License: "GPL", Instructions: asm.Instructions{
			asm.StoreImm(asm.RFP, -4, int64(key), asm.Word),
			asm.LoadMapPtr(asm.R1, m.FD()),
			asm.Mov.Reg(asm.R2, asm.RFP),
			asm.Add.Imm(asm.R2, -4),
			asm.FnMapLookupElem.Call(),
			asm.JEq.Imm(asm.R0, 0, "absent"),
			asm.Mov.Imm(asm.R1, 1),
			asm.StoreXAdd(asm.R0, asm.R1, asm.DWord),
			asm.Mov.Imm(asm.R0, 7),
			asm.Return(),
			asm.Mov.Imm(asm.R0, 0).WithSymbol("absent"),
			asm.Return(),
		},
	})
	check(err)
	defer program.Close()
	before := len(present(m))
	result, _, err := program.Test(make([]byte, 64))
	check(err)
	expect("the program does not find the key", result == 7)
	return before - len(present(m))
}

func main() {
	stayOnOneCPU()
	var name unix.Utsname
	check(unix.Uname(&name))
	fmt.Printf("Linux %s, maps of %d entries\n", unix.ByteSliceToString(name.Release[:]), size)
	const last = size - 1

	hash := full(ebpf.Hash, size)
	lost := overwrite(hash, last, 1)
	fmt.Printf("hash, full:                     one overwrite loses %d keys\n", lost)
	expect("a hash map loses keys", lost == 0)

	roomy := full(ebpf.LRUHash, size-1)
	lost = overwrite(roomy, last-1, 1000)
	fmt.Printf("LRU hash, one element free:     1000 overwrites lose %d keys\n", lost)
	expect("an LRU map with a free element loses keys", lost == 0)

	lru := full(ebpf.LRUHash, size)
	expect("an LRU map does not hold as many keys as it has entries", len(present(lru)) == size)
	lost = addInPlace(lru, last)
	fmt.Printf("LRU hash, full:                 one change in place loses %d keys\n", lost)
	expect("a change in place loses keys", lost == 0)

	lost = overwrite(lru, last, 1)
	left := present(lru)
	fmt.Printf("LRU hash, full:                 one overwrite loses %d keys\n", lost)
	expect("an overwrite of a full LRU map evicts nothing, or one key", lost > 1 && lost <= 128)
	expect("the written key is gone", left[last])

	lost = overwrite(lru, last, 1000)
	fmt.Printf("LRU hash, after that:           1000 overwrites lose %d keys\n", lost)
	expect("further overwrites evict", lost == 0)

	for added := uint32(1); ; added++ {
		expect("an overwrite evicts no second batch", added <= size)
		check(lru.Update(size+added, uint64(1), ebpf.UpdateNoExist))
		lost = overwrite(lru, last, 1)
		if lost > 0 {
			fmt.Printf("LRU hash, after %d new keys:   one overwrite loses %d keys\n", added, lost)
			break
		}
	}
	fmt.Println("as described: an overwrite of a full LRU hash map evicts a batch of other keys")
}
GO
go build -o "$work/finding" . || cannot "the build failed"
"$work/finding"
