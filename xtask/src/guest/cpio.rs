//! An archive in the format `newc` of cpio, which the kernel unpacks as its first file system.
//!
//! Files are owned by root; what is in the archive is regular files and directories, and parents
//! come first. The source of the format is `Documentation/driver-api/early-userspace/buffer-format.rst`
//! of the kernel.

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;

/// An archive that is being written.
#[derive(Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    pub(super) fn directory(&mut self, path: &str) {
        self.entry(path, DIRECTORY, &[]);
    }

    /// A file that may be executed.
    pub(super) fn program(&mut self, path: &str, content: &[u8]) {
        self.entry(path, PROGRAM, content);
    }

    /// The whole archive.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        let (name, size) = (path.len() + 1, content.len());
        // Number, mode, owner, group, links, time, size, four of devices, length of the name, checksum.
        let fields = [
            self.entries as usize,
            mode as usize,
            0,
            0,
            1,
            0,
            size,
            0,
            0,
            0,
            0,
            name,
            0,
        ];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(path.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_has_each_entry_at_a_multiple_of_four() {
        let mut archive = Archive::default();
        archive.directory("bin");
        archive.program("bin/a", b"12345");
        let bytes = archive.finish();
        let text = String::from_utf8(bytes).unwrap();
        let header = "070701000000010000 41ed";
        assert!(text.starts_with(&header.replace(' ', "")), "{text}");
        let file = text.find("bin/a\0").unwrap();
        assert_eq!((file - 110) % 4, 0);
        assert_eq!(text.find("12345").unwrap() % 4, 0);
        let size = &text[file - 110 + 54..][..8];
        assert_eq!(size, "00000005");
        assert!(text.ends_with("TRAILER!!!\0\0\0\0") && text.len().is_multiple_of(4));
    }
}
