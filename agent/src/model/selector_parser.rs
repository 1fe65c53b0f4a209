//! The string syntax of label selectors, as accepted by `kubectl -l`.
//!
//! Follows the grammar of Kubernetes' own parser: `in` and `notin` are ordinary words in the place
//! of a key or value, and a missing value is the empty value. The numeric operators `<` and `>` are
//! refused, because selectors in policies do not have them.

use std::collections::BTreeSet;
use std::str::FromStr;

use super::quote::quote;
use super::selector::{LabelSelector, Operator, Requirement};

/// A selector that cannot be parsed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("bad label selector at character {position}: {message}")]
pub struct SelectorError {
    /// The position, counted in characters from 1.
    pub position: usize,
    /// What was found and what was expected.
    pub message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    Comma,
    Open,
    Close,
    Not,
    Equals,
    NotEquals,
    Other(char),
    End,
}

impl Token<'_> {
    fn describe(self) -> String {
        match self {
            Self::Word(word) => quote(word).to_string(),
            Self::Comma => "','".to_owned(),
            Self::Open => "'('".to_owned(),
            Self::Close => "')'".to_owned(),
            Self::Not => "'!'".to_owned(),
            Self::Equals => "'='".to_owned(),
            Self::NotEquals => "'!='".to_owned(),
            Self::Other(character) => quote(character.encode_utf8(&mut [0; 4])).to_string(),
            Self::End => "the end".to_owned(),
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    rest: &'a str,
}

fn ends_word(character: char) -> bool {
    character.is_whitespace() || "=!(),<>".contains(character)
}

/// The position in `text` at which `rest` begins, counted in characters from 1.
fn position(text: &str, rest: &str) -> usize {
    let consumed = text.len().saturating_sub(rest.len());
    text.get(..consumed)
        .map_or(1, |head| head.chars().count() + 1)
}

impl<'a> Parser<'a> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn scan(&self) -> (Token<'a>, &'a str) {
        let rest = self.rest;
        let Some(first) = rest.chars().next() else {
            return (Token::End, rest);
        };
        for (symbol, token) in [
            ("!=", Token::NotEquals),
            ("==", Token::Equals),
            ("=", Token::Equals),
            ("!", Token::Not),
            (",", Token::Comma),
            ("(", Token::Open),
            (")", Token::Close),
        ] {
            if let Some(after) = rest.strip_prefix(symbol) {
                return (token, after);
            }
        }
        let end = rest.find(ends_word).unwrap_or(rest.len());
        match rest.split_at_checked(end) {
            Some((word, after)) if !word.is_empty() => (Token::Word(word), after),
            _ => (
                Token::Other(first),
                rest.get(first.len_utf8()..).unwrap_or_default(),
            ),
        }
    }

    fn peek(&mut self) -> Token<'a> {
        self.skip_space();
        self.scan().0
    }

    fn take(&mut self) -> Token<'a> {
        self.skip_space();
        let (token, after) = self.scan();
        self.rest = after;
        token
    }

    fn position(&self) -> usize {
        position(self.text, self.rest)
    }

    fn fail_expecting<T>(&mut self, expected: &str) -> Result<T, SelectorError> {
        let token = self.peek();
        Err(SelectorError {
            position: self.position(),
            message: format!("found {}, expected {expected}", token.describe()),
        })
    }

    fn selector(&mut self) -> Result<LabelSelector, SelectorError> {
        if self.peek() == Token::End {
            return Ok(LabelSelector::everything());
        }
        let mut requirements = vec![self.requirement()?];
        loop {
            match self.peek() {
                Token::End => return Ok(LabelSelector::new(requirements)),
                Token::Comma => {
                    self.take();
                    requirements.push(self.requirement()?);
                }
                _ => return self.fail_expecting("',' or the end"),
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        let negated = self.peek() == Token::Not;
        if negated {
            self.take();
        }
        let Token::Word(key) = self.peek() else {
            return self.fail_expecting("a label key");
        };
        let start = self.rest;
        self.take();
        let operator = if negated {
            Operator::DoesNotExist
        } else {
            self.operator()?
        };
        Requirement::new(key, operator).map_err(|error| SelectorError {
            position: position(self.text, start),
            message: error.to_string(),
        })
    }

    fn operator(&mut self) -> Result<Operator, SelectorError> {
        match self.peek() {
            Token::End | Token::Comma => Ok(Operator::Exists),
            Token::Equals => Ok(Operator::In(self.single_value())),
            Token::NotEquals => Ok(Operator::NotIn(self.single_value())),
            Token::Word("in") => Ok(Operator::In(self.value_list()?)),
            Token::Word("notin") => Ok(Operator::NotIn(self.value_list()?)),
            _ => self.fail_expecting("'=', '==', '!=', 'in', 'notin', ',' or the end"),
        }
    }

    fn single_value(&mut self) -> BTreeSet<String> {
        self.take();
        BTreeSet::from([self.optional_word()])
    }

    fn optional_word(&mut self) -> String {
        match self.peek() {
            Token::Word(word) => {
                self.take();
                word.to_owned()
            }
            _ => String::new(),
        }
    }

    fn value_list(&mut self) -> Result<BTreeSet<String>, SelectorError> {
        self.take();
        if self.peek() != Token::Open {
            return self.fail_expecting("'('");
        }
        self.take();
        let mut values = BTreeSet::new();
        if self.peek() == Token::Close {
            return self.fail_expecting("at least one value");
        }
        loop {
            values.insert(self.optional_word());
            match self.peek() {
                Token::Comma => {
                    self.take();
                }
                Token::Close => {
                    self.take();
                    return Ok(values);
                }
                _ => return self.fail_expecting("',' or ')'"),
            }
        }
    }
}

impl FromStr for LabelSelector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Parser { text, rest: text }.selector()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refusal(text: &str) -> String {
        text.parse::<LabelSelector>().unwrap_err().to_string()
    }

    #[test]
    fn a_selector_is_displayed_in_canonical_form() {
        for (text, canonical) in [
            ("", ""),
            ("app", "app"),
            ("! app", "!app"),
            ("x==y", "x=y"),
            ("x=", "x="),
            ("x=,y", "x=,y"),
            ("x in (b,a)", "x in (a,b)"),
            ("x in(a)", "x=a"),
            ("x notin (a)", "x!=a"),
            ("in in (in,notin)", "in in (in,notin)"),
            ("x in (,a)", "x in (,a)"),
            ("k8s.io/app=a", "k8s.io/app=a"),
        ] {
            assert_eq!(
                text.parse::<LabelSelector>().unwrap().to_string(),
                canonical,
                "{text}"
            );
        }
    }

    #[test]
    fn errors_name_the_position_and_what_was_expected() {
        let operators = "'=', '==', '!=', 'in', 'notin', ',' or the end";
        for (text, message) in [
            (
                "a,",
                "character 3: found the end, expected a label key".to_owned(),
            ),
            (
                ",a",
                "character 1: found ',', expected a label key".to_owned(),
            ),
            (
                "!",
                "character 2: found the end, expected a label key".to_owned(),
            ),
            (
                "!!a",
                "character 2: found '!', expected a label key".to_owned(),
            ),
            (
                "a in b",
                "character 6: found \"b\", expected '('".to_owned(),
            ),
            (
                "a in ()",
                "character 7: found ')', expected at least one value".to_owned(),
            ),
            (
                "a in (b",
                "character 8: found the end, expected ',' or ')'".to_owned(),
            ),
            (
                "a b",
                format!("character 3: found \"b\", expected {operators}"),
            ),
            (
                "a>1",
                format!("character 2: found \">\", expected {operators}"),
            ),
            (
                "a=b c",
                "character 5: found \"c\", expected ',' or the end".to_owned(),
            ),
            (
                "!a=b",
                "character 3: found '=', expected ',' or the end".to_owned(),
            ),
        ] {
            assert_eq!(
                refusal(text),
                format!("bad label selector at {message}"),
                "{text}"
            );
        }
        assert!(refusal("x,-a").starts_with(
            r#"bad label selector at character 3: "-a" is not a label key: expected"#
        ));
        assert!(refusal("ä=b").contains("is not a label key"));
        assert!(refusal("a=b/c").contains(r#""b/c" is not a label value"#));
    }

    fn word() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-c]",
            "[A-Za-z0-9]([A-Za-z0-9_.-]{0,8}[a-z0-9])?",
            Just("in".to_owned())
        ]
    }

    fn operator() -> impl Strategy<Value = Operator> {
        let value = prop_oneof![word(), Just(String::new())];
        let values = prop::collection::btree_set(value, 1..4);
        prop_oneof![
            values.clone().prop_map(Operator::In),
            values.prop_map(Operator::NotIn),
            Just(Operator::Exists),
            Just(Operator::DoesNotExist),
        ]
    }

    fn selector() -> impl Strategy<Value = LabelSelector> {
        let requirement = (word(), operator())
            .prop_map(|(key, operator)| Requirement::new(&key, operator).unwrap());
        prop::collection::vec(requirement, 0..5).prop_map(LabelSelector::new)
    }

    proptest! {
        #[test]
        fn display_parses_back(selector in selector()) {
            prop_assert_eq!(selector.to_string().parse::<LabelSelector>().unwrap(), selector);
        }

        #[test]
        fn never_panics(text in "[ab!=(),<> in/ä\u{202e}-]{0,24}") {
            let _outcome = text.parse::<LabelSelector>();
        }
    }
}
