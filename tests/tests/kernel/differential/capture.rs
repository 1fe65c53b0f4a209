//! Writes frames to a capture file (classic pcap) for Wireshark and tcpdump.

use std::io::Write as _;
use std::path::PathBuf;

/// Writes frames to a new file, which is kept.
pub(super) fn write<'a>(frames: impl Iterator<Item = &'a [u8]>) -> PathBuf {
    let (mut file, path) = tempfile::Builder::new()
        .prefix("ringfence-differential-")
        .suffix(".pcap")
        .tempfile()
        .unwrap()
        .keep()
        .unwrap();
    // Magic, version 2.4, time zone, accuracy, snapshot length, link type Ethernet.
    let header: [u32; 6] = [0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, 1];
    let mut bytes: Vec<u8> = header.iter().flat_map(|word| word.to_le_bytes()).collect();
    for (second, frame) in (0_u32..).zip(frames) {
        let length = u32::try_from(frame.len()).unwrap();
        bytes.extend(
            [second, 0, length, length]
                .iter()
                .flat_map(|word| word.to_le_bytes()),
        );
        bytes.extend(frame);
    }
    file.write_all(&bytes).unwrap();
    path
}
