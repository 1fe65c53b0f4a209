//! SPDX licence expressions, evaluated against a list of accepted licences.
//!
//! Supports `OR`, `AND`, `WITH`, parentheses and the old `/` for `OR`. A licence `WITH` an
//! exception is one name, which must be in the list as a whole.

use anyhow::{Result, bail};

/// Whether `expression` can be satisfied with licences from `accepted`; an error if it is
/// malformed.
pub(crate) fn is_satisfied(expression: &str, accepted: &[String]) -> Result<bool> {
    let spaced = expression
        .replace('(', " ( ")
        .replace(')', " ) ")
        .replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut reader = Reader {
        rest: &words,
        accepted,
    };
    let Some(satisfied) = reader.any_of().filter(|_| reader.rest.is_empty()) else {
        bail!("malformed licence expression `{expression}`");
    };
    Ok(satisfied)
}

struct Reader<'a> {
    rest: &'a [&'a str],
    accepted: &'a [String],
}

/// Each method reads one construct; returns whether it is satisfied, `None` if it is malformed.
impl<'a> Reader<'a> {
    fn next(&mut self) -> Option<&'a str> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(first)
    }

    fn takes(&mut self, word: &str) -> bool {
        let found = self.rest.first() == Some(&word);
        if found {
            self.next();
        }
        found
    }

    fn any_of(&mut self) -> Option<bool> {
        let mut satisfied = self.all_of()?;
        while self.takes("OR") {
            satisfied |= self.all_of()?;
        }
        Some(satisfied)
    }

    fn all_of(&mut self) -> Option<bool> {
        let mut satisfied = self.licence()?;
        while self.takes("AND") {
            satisfied &= self.licence()?;
        }
        Some(satisfied)
    }

    fn licence(&mut self) -> Option<bool> {
        let name = match self.next()? {
            "(" => return self.any_of().filter(|_| self.takes(")")),
            "OR" | "AND" | "WITH" | ")" => return None,
            name => name,
        };
        if !self.takes("WITH") {
            return Some(self.accepts(name));
        }
        let exception = self.next()?;
        Some(self.accepts(&format!("{name} WITH {exception}")))
    }

    fn accepts(&self, name: &str) -> bool {
        self.accepted.iter().any(|accepted| accepted == name)
    }
}

#[cfg(test)]
mod tests {
    use super::is_satisfied;

    fn satisfied(expression: &str) -> bool {
        let accepted = [
            "MIT",
            "Apache-2.0",
            "Apache-2.0 WITH LLVM-exception",
            "Unicode-3.0",
        ];
        is_satisfied(expression, &accepted.map(String::from)).unwrap()
    }

    #[test]
    fn or_needs_one_and_needs_all() {
        assert!(satisfied("MIT") && satisfied("MIT OR GPL-3.0-only") && satisfied("GPL-2.0/MIT"));
        assert!(!satisfied("GPL-3.0-only") && !satisfied("MIT AND GPL-3.0-only"));
        assert!(satisfied("GPL-3.0-only OR MIT AND Apache-2.0"));
        assert!(!satisfied("(GPL-3.0-only OR MIT) AND LGPL-2.1-only"));
        assert!(satisfied("(MIT OR GPL-3.0-only) AND Unicode-3.0"));
    }

    #[test]
    fn an_exception_is_part_of_the_name() {
        assert!(satisfied("Apache-2.0 WITH LLVM-exception"));
        assert!(!satisfied("MIT WITH LLVM-exception"));
    }

    #[test]
    fn malformed_expressions_are_errors() {
        for text in ["", "MIT OR", "(MIT", "MIT MIT", "AND", "MIT WITH", "MIT)"] {
            assert!(is_satisfied(text, &[]).is_err(), "{text}");
        }
    }
}
