//! The paths that a file uses: every `use`, expanded, and every qualified path in code.
//!
//! Names are read as written. Renames and re-exports are not followed, and a path that a macro
//! assembles is not found.

use super::source::{SourceFile, Token};

/// One path, such as `crate::policy::Rule`; globs end in `*`.
#[derive(Debug, PartialEq)]
pub(crate) struct UsedPath {
    pub(crate) segments: Vec<String>,
    pub(crate) line: usize,
}

impl UsedPath {
    pub(crate) fn segment(&self, index: usize) -> Option<&str> {
        self.segments.get(index).map(String::as_str)
    }

    /// The name directly below the crate root that this path refers to, if it starts at the root;
    /// `module` is the module that contains the path.
    pub(crate) fn below_root(&self, module: &[String]) -> Option<&str> {
        if matches!(self.segment(0), Some("crate" | "ringfence")) {
            return self.segment(1);
        }
        let written = self
            .segments
            .iter()
            .skip_while(|segment| *segment == "self");
        let ups = written
            .clone()
            .take_while(|segment| *segment == "super")
            .count();
        let reaches_root = ups > 0 && ups >= module.len();
        written
            .skip(ups)
            .map(String::as_str)
            .next()
            .filter(|_| reaches_root)
    }
}

/// The module in a file of a package's `src` directory: `agent/src/a/b.rs` → `[a, b]`.
pub(crate) fn module_of(file: &SourceFile) -> Vec<String> {
    let inside = file
        .path
        .split_once("/src/")
        .map_or("", |(_, inside)| inside);
    let name = inside.strip_suffix(".rs").unwrap_or(inside);
    let name = name.strip_suffix("/mod").unwrap_or(name);
    name.split('/').map(String::from).collect()
}

/// Every path in `tokens`.
pub(crate) fn of(tokens: &[Token]) -> Vec<UsedPath> {
    let mut reader = Reader {
        rest: tokens,
        paths: Vec::new(),
    };
    while let Some(token) = reader.next() {
        if token.is("use") && !reader.at("<") {
            reader.tree(&[], token.line);
        } else if token.is("extern") && reader.at("crate") {
            reader.next();
            reader.tree(&[], token.line);
        } else if token.is_word() && reader.at("::") {
            reader.qualified(token);
        }
    }
    reader.paths
}

struct Reader<'a> {
    rest: &'a [Token],
    paths: Vec<UsedPath>,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Option<&'a Token> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(first)
    }

    fn at(&self, text: &str) -> bool {
        self.rest.first().is_some_and(|token| token.is(text))
    }

    /// One branch of a `use` tree, up to the punctuation that ends it.
    fn tree(&mut self, prefix: &[String], line: usize) {
        let mut segments = prefix.to_vec();
        while let Some(token) = self.rest.first() {
            if token.is(",") || token.is(";") || token.is("}") {
                break;
            }
            self.next();
            if token.is("{") {
                return self.group(&segments, token.line);
            } else if token.is("as") {
                self.next();
            } else if token.is("*") || (token.is_word() && (!token.is("self") || prefix.is_empty()))
            {
                segments.push(token.text.clone());
            }
        }
        self.paths.push(UsedPath { segments, line });
    }

    fn group(&mut self, prefix: &[String], mut line: usize) {
        while !self.at("}") {
            line = self.rest.first().map_or(line, |token| token.line);
            self.tree(prefix, line);
            if !self.at(",") {
                break;
            }
            self.next();
        }
        self.next();
    }

    fn qualified(&mut self, first: &Token) {
        let mut segments = vec![first.text.clone()];
        while let [separator, word, rest @ ..] = self.rest
            && separator.is("::")
            && word.is_word()
        {
            segments.push(word.text.clone());
            self.rest = rest;
        }
        if segments.len() > 1 {
            self.paths.push(UsedPath {
                segments,
                line: first.line,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> Vec<String> {
        let file = SourceFile::new("agent/src/x.rs", text);
        of(&file.tokens)
            .iter()
            .map(|path| path.segments.join("::"))
            .collect()
    }

    #[test]
    fn use_trees_are_expanded() {
        let text = "pub(crate) use a::{self, b::{C, D as E}, f::*,};\nuse ::g; use self::h::I;";
        let expected = ["a", "a::b::C", "a::b::D", "a::f::*", "g", "self::h::I"];
        assert_eq!(written(text), expected);
    }

    #[test]
    fn paths_in_code_are_found() {
        let text = "fn f(x: crate::a::B) -> c::D { e::f::<G>(h); ::i::j!(k) } impl use<'a> extern crate l;";
        assert_eq!(written(text), ["crate::a::B", "c::D", "e::f", "i::j", "l"]);
    }

    #[test]
    fn modules_and_paths_to_the_root() {
        let module = |path: &str| module_of(&SourceFile::new(path, "")).join("::");
        assert_eq!(module("agent/src/policy/table.rs"), "policy::table");
        assert_eq!(module("agent/src/policy/mod.rs"), "policy");
        let deep = [String::from("policy"), String::from("table")];
        let below = |text: &str| {
            let segments = text.split("::").map(String::from).collect();
            UsedPath { segments, line: 1 }
                .below_root(&deep)
                .map(String::from)
        };
        assert_eq!(below("crate::app::run").as_deref(), Some("app"));
        assert_eq!(below("super::super::app").as_deref(), Some("app"));
        assert_eq!(below("self::super::super::app").as_deref(), Some("app"));
        assert_eq!(below("super::rule"), None);
        assert_eq!(below("app::run"), None);
    }
}
