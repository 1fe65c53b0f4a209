//! The sizes of the eBPF programs as the kernel reports them, and the recorded sizes.
//!
//! The record, `ebpf/sizes.toml`, makes growth visible in review. All numbers also depend on the kernel,
//! which prunes, rewrites and inlines in its own way (translated, `from_workload` has 262,392 bytes on 6.1,
//! 282,304 on 6.12 and 265,168 on 6.18), so they are compared only on the kernel version of the record.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use ringfence::datapath::KernelDatapath;
use serde::{Deserialize, Serialize};

/// The programs on an endpoint's interface.
pub const PROGRAMS: [&str; 2] = ["from_workload", "to_workload"];
/// The most instructions that verifying a program may process on the kernel of the record, well below
/// the kernel's limit of a million (`BPF_COMPLEXITY_LIMIT_INSNS`).
pub const MAX_VERIFIED_INSNS: u32 = 300_000;
/// The same on other kernels: older verifiers prune fewer states, and that of 6.1 processes 1.7 times as
/// many instructions.
pub const MAX_VERIFIED_ELSEWHERE: u32 = 600_000;

/// The sizes of one program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sizes {
    /// Instructions that the verifier processed.
    pub verified: u32,
    /// Bytes of the program after the verifier's rewrites.
    pub translated: u32,
    /// Bytes of machine code.
    pub jitted: u32,
}

/// The sizes of all programs on one kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Record {
    /// The kernel's major and minor version: `6.18`.
    pub kernel: String,
    /// Sizes by program name.
    pub programs: BTreeMap<String, Sizes>,
}

impl Record {
    /// Reads the record.
    ///
    /// # Errors
    /// When the record does not parse.
    pub fn kept() -> Result<Self> {
        toml::from_str(include_str!("../../ebpf/sizes.toml")).context("ebpf/sizes.toml")
    }

    /// Reads the current sizes from the kernel.
    ///
    /// # Errors
    /// When the kernel does not report them; it does since Linux 5.16.
    pub fn measured(datapath: &mut KernelDatapath) -> Result<Self> {
        let mut programs = BTreeMap::new();
        for name in PROGRAMS {
            let program = datapath.program(name).context("no such program")?;
            let info = program.info()?;
            let missing = "the kernel does not report the program's size";
            let sizes = Sizes {
                verified: info.verified_instruction_count().context(missing)?,
                translated: info.size_translated().context(missing)?,
                jitted: info.size_jitted(),
            };
            programs.insert(name.to_owned(), sizes);
        }
        let release = nix::sys::utsname::uname()?.release().to_owned();
        let release = release.to_string_lossy();
        let version = release.split('.').take(2).collect::<Vec<_>>().join(".");
        Ok(Self {
            kernel: version,
            programs,
        })
    }

    /// The sizes that differ from `record` by more than 5 %, one line each; none on another kernel.
    #[must_use]
    pub fn differences(&self, record: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        if self.kernel != record.kernel {
            return lines;
        }
        for (name, sizes) in &self.programs {
            let Some(kept) = record.programs.get(name) else {
                lines.push(format!("{name} is not on record"));
                continue;
            };
            for (what, now, then) in [
                ("instructions verified", sizes.verified, kept.verified),
                ("bytes translated", sizes.translated, kept.translated),
                ("bytes jitted", sizes.jitted, kept.jitted),
            ] {
                if now.abs_diff(then) > then / 20 {
                    lines.push(format!("{name}: {now} {what}, on record {then}"));
                }
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kernel: &str, verified: u32, translated: u32) -> Record {
        let sizes = Sizes {
            verified,
            translated,
            jitted: 50,
        };
        Record {
            kernel: kernel.into(),
            programs: BTreeMap::from([("to_workload".into(), sizes)]),
        }
    }

    #[test]
    fn changes_over_five_percent_on_the_kernel_of_the_record_are_reported() {
        let kept = record("6.18", 1000, 1000);
        assert!(record("6.18", 1050, 950).differences(&kept).is_empty());
        assert_eq!(record("6.18", 1051, 949).differences(&kept).len(), 2);
        let elsewhere = record("5.10", 2000, 2000).differences(&kept);
        assert!(elsewhere.is_empty(), "{elsewhere:?}");
    }
}
