//! Waits for programs that are running.
//!
//! Invariant: after [`synchronize`] no program of before is running, so nothing refers any more to
//! what a map pointed to before.

#![allow(unsafe_code, reason = "membarrier(2) has no safe wrapper")]

use std::{thread, time::Duration};

/// `MEMBARRIER_CMD_GLOBAL` of `enum membarrier_cmd`: `synchronize_rcu` (Linux commit 5b25b13ab08f);
/// TC programs run under `rcu_read_lock`.
const GLOBAL: libc::c_int = 1;
/// A kernel with `nohz_full` refuses the command. A packet is in a program for microseconds.
const INSTEAD: Duration = Duration::from_millis(500);

/// Waits an RCU grace period, 10 to 30 ms on an idle machine.
pub(super) fn synchronize() {
    // SAFETY: the call takes numbers only.
    let refused = unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0, 0) != 0 };
    if refused {
        thread::sleep(INSTEAD);
    }
}
