//! The end of what a guest's program prints: a secret word, a blank, the exit status, a line end.
//!
//! Output is passed on as it arrives; only what may be the beginning of the trailer is kept back.

/// One stream of a guest, of which the trailer has not arrived yet.
pub(super) struct Trailer {
    secret: Vec<u8>,
    /// What may be a part of the trailer.
    kept: Vec<u8>,
}

impl Trailer {
    pub(super) fn new(secret: &str) -> Self {
        Self {
            secret: format!("{secret} ").into_bytes(),
            kept: Vec::new(),
        }
    }

    /// Takes what arrived; returns what belongs to the program, and the exit status once the trailer
    /// is complete.
    pub(super) fn take(&mut self, bytes: &[u8]) -> (Vec<u8>, Option<u8>) {
        self.kept.extend(bytes);
        let mut windows = self.kept.windows(self.secret.len());
        let Some(start) = windows.position(|window| window == self.secret) else {
            let start = self.kept.len() - self.beginning();
            let rest = self.kept.split_off(start);
            return (std::mem::replace(&mut self.kept, rest), None);
        };
        let rest = self.kept.split_off(start);
        let passed = std::mem::replace(&mut self.kept, rest);
        let status = self.kept.get(self.secret.len()..).unwrap_or_default();
        let status = std::str::from_utf8(status).unwrap_or_default();
        let status = status.strip_suffix('\n').and_then(|text| text.parse().ok());
        (passed, status)
    }

    /// What was kept back although no trailer followed.
    pub(super) fn rest(self) -> Vec<u8> {
        self.kept
    }

    /// How many of the last bytes may begin the trailer.
    fn beginning(&self) -> usize {
        let longest = self.kept.len().min(self.secret.len());
        let mut lengths = (0..=longest).rev();
        let begins = |length: &usize| {
            let end = self.kept.len() - length;
            self.secret.get(..*length) == self.kept.get(end..)
        };
        lengths.find(begins).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "abac";

    /// What is passed on and the status, if the bytes arrive in chunks of a size.
    fn pass(text: &str, size: usize) -> (String, Option<u8>) {
        let mut trailer = Trailer::new(SECRET);
        let (mut passed, mut status) = (Vec::new(), None);
        for chunk in text.as_bytes().chunks(size) {
            let (bytes, found) = trailer.take(chunk);
            passed.extend(bytes);
            status = status.or(found);
        }
        if status.is_none() {
            passed.extend(trailer.rest());
        }
        (String::from_utf8(passed).unwrap(), status)
    }

    #[test]
    fn the_trailer_is_found_wherever_it_is_cut() {
        for size in 1..20 {
            let (passed, status) = pass("ab aba abab\nab\0aabac 130\n", size);
            assert_eq!((passed.as_str(), status), ("ab aba abab\nab\0a", Some(130)));
            assert_eq!(pass("abac 0\n", size), (String::new(), Some(0)));
        }
    }

    #[test]
    fn without_a_trailer_everything_is_passed_on() {
        for size in 1..20 {
            for text in ["", "aba", "abac", "abac 12", "lines\nabab\n"] {
                assert_eq!(pass(text, size), (text.to_owned(), None));
            }
        }
    }

    #[test]
    fn only_what_may_begin_the_trailer_is_kept_back() {
        let mut trailer = Trailer::new(SECRET);
        assert_eq!(trailer.take(b"line\n").0, b"line\n");
        assert_eq!(trailer.take(b"line ab").0, b"line ");
        assert_eq!(trailer.take(b"b").0, b"abb");
    }
}
