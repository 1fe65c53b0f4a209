//! The kernel programs' debug log, behind `debug-kernel-log`.
//!
//! For people who debug the programs; flows are told by `Telemetry`, never by this.

use aya::Ebpf;
use aya_log::EbpfLogger;

use super::DatapathError;

/// Records that the programs logged.
pub struct KernelLog(EbpfLogger<&'static dyn log::Log>);

impl KernelLog {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, DatapathError> {
        EbpfLogger::init(ebpf)
            .map(Self)
            .map_err(|error| DatapathError::Load(error.to_string()))
    }

    /// Hands everything logged so far to the agent's log.
    pub fn flush(&mut self) {
        self.0.flush();
    }
}
