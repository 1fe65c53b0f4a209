//! The kernel programs' debug log, enabled by `debug-kernel-log`.
//!
//! For debugging the programs; flows are reported by `Telemetry`, never by this log.

use aya::Ebpf;
use aya_log::EbpfLogger;

use super::DatapathError;

/// Reads the programs' log records.
pub struct KernelLog(EbpfLogger<&'static dyn log::Log>);

impl KernelLog {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, DatapathError> {
        EbpfLogger::init(ebpf)
            .map(Self)
            .map_err(|error| DatapathError::Load(error.to_string()))
    }

    /// Writes everything logged so far to the agent's log.
    pub fn flush(&mut self) {
        self.0.flush();
    }
}
