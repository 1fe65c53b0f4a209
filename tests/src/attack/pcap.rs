//! Capture files in the classic libpcap format, which every analyser reads.
//!
//! Timestamps are those of writing. The format has no comments, so the file's name says what the
//! frames are.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};

const MAGIC: u32 = 0xa1b2_c3d4;
const ETHERNET: u32 = 1;
const LONGEST: u32 = 262_144;

/// Writes frames to a new file.
pub fn write<'a>(path: &Path, frames: impl IntoIterator<Item = &'a [u8]>) -> Result<()> {
    let file = File::create(path).with_context(|| format!("creating {}", path.display()))?;
    let mut file = BufWriter::new(file);
    file.write_all(&MAGIC.to_ne_bytes())?;
    for version in [2_u16, 4] {
        file.write_all(&version.to_ne_bytes())?;
    }
    words(&mut file, [0, 0, LONGEST, ETHERNET])?;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let seconds = u32::try_from(now.as_secs()).unwrap_or(u32::MAX);
    for frame in frames {
        let length = u32::try_from(frame.len())?;
        words(&mut file, [seconds, now.subsec_micros(), length, length])?;
        file.write_all(frame)?;
    }
    file.flush()
        .with_context(|| format!("writing {}", path.display()))
}

fn words(file: &mut impl std::io::Write, words: [u32; 4]) -> std::io::Result<()> {
    words
        .into_iter()
        .try_for_each(|word| file.write_all(&word.to_ne_bytes()))
}

/// Reads the frames of a file that [`write`] has written on a machine of the same byte order, up to
/// the first one that is not whole.
#[must_use]
pub fn read(file: &[u8]) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let mut rest = file.get(24..).unwrap_or_default();
    while let Some((head, more)) = rest.split_first_chunk::<16>() {
        // The captured length; the original one follows.
        let [.., a, b, c, d, _, _, _, _] = *head;
        let length = usize::try_from(u32::from_ne_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        let Some((frame, more)) = more.split_at_checked(length) else {
            break;
        };
        frames.push(frame.to_vec());
        rest = more;
    }
    frames
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_a_header_and_a_record_for_each_frame() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.pcap");
        write(&path, [b"frame".as_slice(), b"two".as_slice()]).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes.len(), 24 + 16 + 5 + 16 + 3);
        assert_eq!(bytes[..4], MAGIC.to_ne_bytes());
        assert_eq!(bytes[32..36], 5_u32.to_ne_bytes());
        assert_eq!(&bytes[40..45], b"frame");
        assert_eq!(read(&bytes), [b"frame".to_vec(), b"two".to_vec()]);
        assert_eq!(read(&bytes[..bytes.len() - 1]), [b"frame".to_vec()]);
    }
}
