//! What a guest does once it has booted: run one program and report how it ended.
//!
//! The session is a shell script, the guest's first process. Output and errors of the program each
//! have a port of their own to this machine, apart from the kernel's console, and are passed on byte
//! by byte. When the program has ended, a *trailer* follows on both: a word that only this session
//! knows, and the exit status. The guest then waits until its machine is ended from outside, because
//! powering off could lose what is in flight.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

/// The names of the ports.
pub(super) const OUTPUT: &str = "output";
pub(super) const ERRORS: &str = "errors";

/// A program to run in a guest.
pub(crate) struct Session {
    /// The program and its arguments; a path is one of this machine.
    pub(crate) program: Vec<OsString>,
    /// The working directory.
    pub(crate) directory: PathBuf,
    /// Environment variables.
    pub(crate) environment: Vec<(String, OsString)>,
}

impl Session {
    /// The script; `secret` is the word before the exit status.
    pub(super) fn script(&self, secret: &str) -> String {
        let mut script = format!(
            r#"export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
for port in /sys/class/virtio-ports/*; do
  case $(cat "$port/name") in
    {OUTPUT}) output=/dev/${{port##*/}} ;;
    {ERRORS}) errors=/dev/${{port##*/}} ;;
  esac
done
exec >"$output" 2>"$errors" </dev/null
hostname guest
ip link set lo up
"#
        );
        for (name, value) in &self.environment {
            // Writing to a String cannot fail.
            _ = writeln!(script, "export {name}={}", quoted(value));
        }
        let words: Vec<String> = self.program.iter().map(|word| quoted(word)).collect();
        _ = write!(
            script,
            r#"(cd {directory} && exec {program})
status=$?
printf '{secret} %d\n' $status
printf '{secret} %d\n' $status >&2
while :; do sleep 1000; done
"#,
            directory = quoted(self.directory.as_os_str()),
            program = words.join(" "),
        );
        script
    }
}

/// A word of a shell script. A name that is not UTF-8 loses the bytes that are not.
pub(super) fn quoted(word: &OsStr) -> String {
    let word = String::from_utf8_lossy(word.as_bytes());
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_shell_reads_words_as_they_were() {
        let words = ["a b", "it's", "$HOME `id` \\ \"", "", "line\nline", "--"];
        let line: Vec<String> = words.iter().map(|word| quoted(OsStr::new(word))).collect();
        let script = format!("printf '%s|' {}", line.join(" "));
        let output = Command::new("sh").args(["-c", &script]).output().unwrap();
        let expected: String = words.iter().map(|word| format!("{word}|")).collect();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
    }

    #[test]
    fn the_script_is_valid_and_ends_with_the_status() {
        let session = Session {
            program: vec!["/bin/false".into(), "it's".into()],
            directory: "/tmp/some where".into(),
            environment: vec![("NAME".into(), "two words".into())],
        };
        let script = session.script("word");
        let checked = Command::new("sh").args(["-n", "-c", &script]).status();
        assert!(checked.unwrap().success());
        assert!(script.contains("export NAME='two words'\n"), "{script}");
        let run = "(cd '/tmp/some where' && exec '/bin/false' 'it'\\''s')\nstatus=$?\n";
        assert!(script.contains(run), "{script}");
        assert_eq!(script.matches("printf 'word %d").count(), 2);
    }
}
