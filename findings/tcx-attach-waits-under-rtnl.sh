#!/usr/bin/env bash
# Attaching a tcx link waits for an RCU grace period while it holds the lock of all network devices.
#
# Expected: a tcx link costs what a cls_bpf filter costs to attach; links for many devices are attached
#   sooner from many threads.
# Really: `tcx_link_prog_attach` puts the program in force, then calls `synchronize_rcu`, all under
#   `rtnl_lock`. A link costs 8 to 20 ms where a filter costs less than 0.5 ms, its qdisc included, and
#   the next link, in whichever thread or namespace, waits for the lock. Closing a link waits in the
#   same way; `BPF_LINK_UPDATE` does not. The program runs from the beginning of the wait on, except
#   that of the machine's first link at a hook, which runs after it. A clsact qdisc already on the device
#   does not shorten the wait. While there is one, no ingress qdisc can be added (EEXIST).
# Seen: Linux 6.18 (2 CPUs, CONFIG_HZ=250), iproute2 6.1.0.
# Since: Linux 6.6, with tcx (commit e420bed02507).
# For Ringfence: a new endpoint's first program is in force at once where there is a fence already, the
#   second one grace period later, and 110 endpoints wait for 220 grace periods. A filter could bridge
#   that, but its qdisc makes the CNI plugin `bandwidth` fail, which adds an ingress qdisc at the same
#   moment. A restart updates its links, which costs nothing.
#
# Needs: root, iproute2 (ip, tc), util-linux, Python 3, x86-64.
# Exit status: 0 as described, 1 the behaviour has changed, 2 cannot run.
set -euo pipefail

cannot() { echo "cannot run: $*" >&2; exit 2; }

if [[ ${1-} != inside ]]; then
    [[ $EUID -eq 0 ]] || cannot "needs root"
    [[ $(uname -m) == x86_64 ]] || cannot "needs x86-64"
    for tool in ip tc unshare python3; do
        command -v "$tool" >/dev/null || cannot "needs $tool"
    done
    self=$(realpath "$0")
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    mkdir "$work/bpf"
    unshare --mount --net bash "$self" inside "$work"
    exit
fi

work=$2
mount -t bpf bpf "$work/bpf"
echo "Linux $(uname -r), $(tc -V), $(nproc) CPUs"
python3 - "$work" <<'PY'
import ctypes, os, signal, socket, statistics, struct, subprocess, sys, threading, time

WORK, DEVICES = sys.argv[1], 20
INGRESS, EGRESS = 46, 47  # BPF_TCX_INGRESS, BPF_TCX_EGRESS
libc = ctypes.CDLL(None, use_errno=True)


def bpf(command, attributes):
    attributes = ctypes.create_string_buffer(attributes.ljust(144, b"\0"), 144)
    result = libc.syscall(321, command, attributes, 144)
    if result < 0:
        print("cannot run: bpf command", command, os.strerror(ctypes.get_errno()), file=sys.stderr)
        sys.exit(2)
    return result


def instruction(code, registers=0, offset=0, immediate=0):
    return struct.pack("<BBhi", code, registers, offset, immediate)


def program(map_fd):
    """Writes the time of its first run to the map's value; leaves the packet to the next program."""
    code = b"".join([
        instruction(0x18, 0x26, 0, map_fd), instruction(0),  # r6 = value of the map
        instruction(0x85, 0, 0, 5),                          # r0 = bpf_ktime_get_ns()
        instruction(0x79, 0x61), instruction(0x55, 1, 1, 0), # if *r6 == 0
        instruction(0x7B, 0x06),                             #     *r6 = r0
        instruction(0xB7, 0, 0, -1), instruction(0x95),      # return TC_ACT_UNSPEC
    ])
    code, license = ctypes.create_string_buffer(code, len(code)), ctypes.create_string_buffer(b"GPL")
    at = ctypes.addressof
    return bpf(5, struct.pack("<IIQQ", 3, len(code) // 8, at(code), at(license)))


def link(fd, index, hook):
    return bpf(28, struct.pack("<IIII", fd, index, hook, 0))


def milliseconds(action):
    begun = time.monotonic()
    result = action()
    return (time.monotonic() - begun) * 1000, result


def tc(lines):
    path = WORK + "/batch"
    with open(path, "w") as file:
        file.write("\n".join(lines) + "\n")
    return milliseconds(lambda: subprocess.run(["tc", "-batch", path], check=True))[0]


def row(what, value):
    print(f"{what:66} {value:8.2f} ms", flush=True)
    return value


def changed(what):
    print("changed:", what)
    sys.exit(1)


for number in range(DEVICES):
    subprocess.run(f"ip link add near{number} type veth peer name far{number}", shell=True, check=True)
for name in ("near0", "far0"):
    subprocess.run(f"ip link set {name} up", shell=True, check=True)
index = [socket.if_nametoindex(f"near{number}") for number in range(DEVICES)]
hooks = [(i, hook) for i in index for hook in (INGRESS, EGRESS)]
first_run = bpf(0, struct.pack("<IIIII", 2, 4, 8, 1, 0))
fd, other = program(first_run), program(first_run)

times = [milliseconds(lambda: link(fd, *hook)) for hook in hooks]
links = [made for _, made in times]
attach = row("tcx: attach a link, median", statistics.median(took for took, _ in times))
one = row(f"tcx: {len(hooks)} links, one thread", sum(took for took, _ in times))
update = lambda made: bpf(29, struct.pack("<IIII", made, other, 0, 0))
updated = row("tcx: update a link, median", statistics.median(milliseconds(lambda: update(l))[0] for l in links))
row("tcx: close a link, median", statistics.median(milliseconds(lambda: os.close(l))[0] for l in links))

links = []
def attach_some(part):
    links.extend(link(fd, *hook) for hook in part)
threads = [threading.Thread(target=attach_some, args=(hooks[n::8],)) for n in range(8)]
def all_threads():
    for thread in threads: thread.start()
    for thread in threads: thread.join()
eight = row(f"tcx: {len(hooks)} links, eight threads", milliseconds(all_threads)[0])
for made in links: os.close(made)

# When the program first runs, seen from the beginning of the call that attaches it.
frame = b"\xff" * 6 + b"\x02" * 6 + b"\x88\xb5" + bytes(46)
key, value = ctypes.create_string_buffer(4), ctypes.create_string_buffer(8)
element = lambda: struct.pack("<IIQQQ", first_run, 0, ctypes.addressof(key), ctypes.addressof(value), 0)
# The first link of the machine at a hook runs only after the wait: until then a static key skips the hook.
held = [link(fd, index[1], hook) for hook in (INGRESS, EGRESS)]
runs = []
for hook, sender in ((INGRESS, "far0"), (EGRESS, "near0")) * 10:
    child = os.fork()
    if child == 0:
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        raw.bind((sender, 0))
        while True: raw.send(frame)
    time.sleep(0.1)
    value.raw = bytes(8)
    bpf(2, element())
    begun = time.monotonic_ns()
    made = link(fd, index[0], hook)
    returned = time.monotonic_ns()
    deadline = time.monotonic() + 5
    while not any(value.raw) and time.monotonic() < deadline:
        bpf(1, element())
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    runs.append(((struct.unpack("<Q", value.raw)[0] - begun) / 1e6, (returned - begun) / 1e6))
    os.close(made)
for made in held: os.close(made)
# The least of each: on a busy machine the sender does not always run.
ran = row("tcx: from the call to the program's first packet, least", min(ran for ran, _ in runs))
returned = row("tcx: from the call to its return, meanwhile, least", min(took for _, took in runs))

path = ctypes.create_string_buffer(f"{WORK}/bpf/program".encode())
bpf(6, struct.pack("<QI", ctypes.addressof(path), fd))
idle = min(tc([""]) for _ in range(5))
both = ("ingress", "egress")
clsact = tc([f"qdisc add dev near{n} clsact" for n in range(DEVICES)]) - idle
clsact += tc([f"filter add dev near{n} {hook} prio 1 handle 1 bpf da pinned {WORK}/bpf/program"
              for n in range(DEVICES) for hook in both]) - idle
row(f"clsact: {DEVICES} qdiscs and {len(hooks)} filters", clsact)
with_qdisc = row("tcx: attach a link where there is a clsact qdisc, median",
             statistics.median(milliseconds(lambda: links.append(link(fd, *hook)))[0] for hook in hooks))
refused = subprocess.run(["tc", "qdisc", "add", "dev", "near1", "ingress"], capture_output=True)
print("an ingress qdisc next to clsact:", refused.stderr.decode().strip() or "added")
gone = tc([f"qdisc del dev near{n} clsact" for n in range(DEVICES)]) - idle
row(f"clsact: {DEVICES} qdiscs removed with their filters", gone)
control = subprocess.run(["tc", "qdisc", "add", "dev", "near1", "ingress"], capture_output=True)
print("an ingress qdisc without clsact (tcx links stay):", control.stderr.decode().strip() or "added")

if attach < 1 or with_qdisc < 1: changed("attaching a tcx link does not wait")
if eight < one / 3: changed("threads help")
if clsact > one / 5: changed("clsact waits, too")
if updated > 1: changed("updating a link waits")
if ran > returned / 2: changed("the program runs only after the wait")
if refused.returncode == 0: changed("an ingress qdisc can be added next to clsact")
if control.returncode != 0: changed("an ingress qdisc cannot be added next to tcx links")
print("as described: attaching a tcx link waits, its program runs meanwhile")
PY
