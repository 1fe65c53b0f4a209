//! Parses YAML text to nodes, one document at a time, within limits.
//!
//! Invariants: the result is bounded by [`MAX_NODES`], [`MAX_DOCUMENTS`] and [`MAX_DEPTH`],
//! including expanded aliases; duplicate keys, merge keys and unsupported tags are refused. A
//! document that cannot be parsed is skipped, so that the others can be checked. Plain scalars are
//! resolved like `kubectl` does; one that YAML versions read differently is neither text nor an
//! integer.

use std::borrow::Cow;
use std::collections::HashMap;

use granit_parser::{Event, Parser, ScalarStyle, Span, StrInput, Tag};

use super::node::{Entry, Node, Value};
use super::scalar;
use crate::model::quote;
use crate::model::quote::sanitise;
use crate::source::document::Document;
use crate::source::limits::{MAX_DEPTH, MAX_DOCUMENTS, MAX_NODES};

/// Parses the documents of one text.
pub(super) struct Reader<'a> {
    parser: Parser<'a, StrInput<'a>>,
    nodes: usize,
    documents: usize,
    exhausted: bool,
    incomplete: Vec<Node<'a>>,
}

/// A document under construction.
#[derive(Default)]
struct Builder<'a> {
    open: Vec<Open<'a>>,
    root: Option<Node<'a>>,
    anchors: HashMap<usize, Node<'a>>,
    /// The number of values that were copied for anchors and are not counted yet.
    copied: usize,
}

/// A collection whose end has not been parsed yet.
struct Open<'a> {
    offset: u32,
    anchor: usize,
    content: Content<'a>,
}

enum Content<'a> {
    List(Vec<Node<'a>>),
    Map {
        entries: Vec<Entry<'a>>,
        key: Option<(u32, Cow<'a, str>)>,
    },
}

/// An error that ends a document, or the whole text, at a byte offset.
enum Abort {
    Document(u32, String),
    Text(u32, String),
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let options = granit_parser::options! {
            flow_nesting_limit: MAX_DEPTH,
            block_nesting_limit: MAX_DEPTH,
            emit_comments: false,
        };
        Self {
            parser: Parser::new_from_str_with_options(text, options),
            nodes: 0,
            documents: 0,
            exhausted: false,
            incomplete: Vec::new(),
        }
    }

    /// The next document that can be parsed, after recording the errors of those before it; `None`
    /// at the end.
    pub(super) fn next(&mut self, document: &mut Document<'_>) -> Option<Node<'a>> {
        while !self.exhausted {
            match self.build(document) {
                Ok(root) => return root,
                Err(Abort::Text(at, message)) => {
                    document.refuse(span_at(at), message);
                    self.exhausted = true;
                }
                Err(Abort::Document(at, message)) => {
                    document.refuse(span_at(at), message);
                    self.exhausted = !matches!(self.parser.proceed_next_document(), Ok(true));
                }
            }
        }
        None
    }

    fn build(&mut self, document: &mut Document<'_>) -> Result<Option<Node<'a>>, Abort> {
        let mut builder = Builder::default();
        let built = self.build_with(&mut builder, document);
        if built.is_err() {
            self.incomplete.extend(builder.into_partial());
        }
        built
    }

    /// The parsed parts of the documents that were not parsed to their ends.
    pub(super) fn into_incomplete(self) -> Vec<Node<'a>> {
        self.incomplete
    }

    fn build_with(
        &mut self,
        builder: &mut Builder<'a>,
        document: &mut Document<'_>,
    ) -> Result<Option<Node<'a>>, Abort> {
        loop {
            let (event, span) = match self.parser.next_event() {
                Some(Ok(next)) => next,
                Some(Err(error)) => {
                    let at = error.marker().byte_offset().unwrap_or(0);
                    let message = format!("not YAML: {}", sanitise(&error.info()));
                    return Err(Abort::Document(offset_of(at), message));
                }
                None => {
                    self.exhausted = true;
                    return Ok(None);
                }
            };
            let at = offset_of(span.start.byte_offset().unwrap_or(0));
            match event {
                Event::StreamEnd => {
                    self.exhausted = true;
                    return Ok(None);
                }
                Event::StreamStart => {}
                Event::DocumentStart(..) => self.count_document(at)?,
                Event::DocumentEnd => {
                    let nothing = Node {
                        offset: at,
                        value: Value::Null,
                    };
                    return Ok(Some(builder.root.take().unwrap_or(nothing)));
                }
                event => {
                    self.add_event(builder, document, event, at, span)?;
                    let copied = std::mem::take(&mut builder.copied);
                    self.count(at, 1 + copied)?;
                }
            }
        }
    }

    fn add_event(
        &mut self,
        builder: &mut Builder<'a>,
        document: &mut Document<'_>,
        event: Event<'a>,
        at: u32,
        span: Span,
    ) -> Result<(), Abort> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let value = scalar_value(text, style, tag.as_deref(), at)?;
                let node = Node { offset: at, value };
                builder.record_anchor(anchor, &node);
                builder.insert(node, document)
            }
            Event::SequenceStart(_, anchor, tag) => {
                check_tag(tag.as_deref(), "seq", at)?;
                builder.open(at, anchor, Content::List(Vec::new()))
            }
            Event::MappingStart(_, anchor, tag) => {
                check_tag(tag.as_deref(), "map", at)?;
                let (entries, key) = (Vec::new(), None);
                builder.open(at, anchor, Content::Map { entries, key })
            }
            Event::SequenceEnd | Event::MappingEnd => builder.close(document),
            Event::Alias(anchor) => {
                let Some(mut node) = builder.anchors.get(&anchor).cloned() else {
                    let message = "an alias inside its own anchor: expected the value itself";
                    return Err(Abort::Document(at, message.to_owned()));
                };
                self.count(at, node.count())?;
                node.offset = at;
                builder.insert(node, document)
            }
            _ => {
                let end = span.end.line();
                let message = format!("a construct up to line {end} that is not data");
                Err(Abort::Document(at, message))
            }
        }
    }

    /// Counts values, including those of expanded aliases.
    fn count(&mut self, at: u32, more: usize) -> Result<(), Abort> {
        self.nodes = self.nodes.saturating_add(more);
        if self.nodes <= MAX_NODES {
            return Ok(());
        }
        let message = format!(
            "more than {MAX_NODES} values, counting aliases: expected fewer, split the file"
        );
        Err(Abort::Text(at, message))
    }

    fn count_document(&mut self, at: u32) -> Result<(), Abort> {
        self.documents += 1;
        if self.documents <= MAX_DOCUMENTS {
            return Ok(());
        }
        let message =
            format!("more than {MAX_DOCUMENTS} documents: expected fewer, split the file");
        Err(Abort::Text(at, message))
    }
}

impl<'a> Builder<'a> {
    fn open(&mut self, offset: u32, anchor: usize, content: Content<'a>) -> Result<(), Abort> {
        if self.open.len() >= MAX_DEPTH {
            let message = format!("nested more than {MAX_DEPTH} levels deep: expected a policy");
            return Err(Abort::Document(offset, message));
        }
        self.open.push(Open {
            offset,
            anchor,
            content,
        });
        Ok(())
    }

    fn close(&mut self, document: &mut Document<'_>) -> Result<(), Abort> {
        let Some(open) = self.open.pop() else {
            return Ok(());
        };
        let value = match open.content {
            Content::List(items) => Value::List(items),
            Content::Map { entries, .. } => {
                refuse_duplicates(&entries, document);
                Value::Map(entries)
            }
        };
        let node = Node {
            offset: open.offset,
            value,
        };
        self.record_anchor(open.anchor, &node);
        self.insert(node, document)
    }

    /// Stores the value of an anchor.
    fn record_anchor(&mut self, anchor: usize, node: &Node<'a>) {
        if anchor != 0 {
            self.copied += node.count();
            self.anchors.insert(anchor, node.clone());
        }
    }

    /// The values parsed so far, as if all open collections ended here.
    fn into_partial(mut self) -> Option<Node<'a>> {
        let mut inner = None;
        while let Some(open) = self.open.pop() {
            let value = match open.content {
                Content::List(mut items) => {
                    items.extend(inner.take());
                    Value::List(items)
                }
                Content::Map { mut entries, key } => {
                    if let (Some((offset, key)), Some(value)) = (key, inner.take()) {
                        entries.push(Entry { offset, key, value });
                    }
                    Value::Map(entries)
                }
            };
            let offset = open.offset;
            inner = Some(Node { offset, value });
        }
        inner.or(self.root)
    }

    fn insert(&mut self, node: Node<'a>, document: &mut Document<'_>) -> Result<(), Abort> {
        match self.open.last_mut().map(|open| &mut open.content) {
            None => self.root = Some(node),
            Some(Content::List(items)) => items.push(node),
            Some(Content::Map { entries, key }) => match key.take() {
                Some((offset, key)) => entries.push(Entry {
                    offset,
                    key,
                    value: node,
                }),
                None => *key = Some(key_of(node, document)?),
            },
        }
        Ok(())
    }
}

fn key_of<'a>(node: Node<'a>, document: &mut Document<'_>) -> Result<(u32, Cow<'a, str>), Abort> {
    let at = node.offset;
    match node.value {
        Value::Text(key) => {
            if key == "<<" {
                let message = "a merge key: expected the merged fields themselves";
                document.refuse(span_at(at), message);
            }
            Ok((at, key))
        }
        _ => {
            let kind = node.kind();
            let message = format!("{kind} as a key: expected text, in quotes if need be");
            Err(Abort::Document(at, message))
        }
    }
}

fn refuse_duplicates(entries: &[Entry<'_>], document: &mut Document<'_>) {
    let mut sorted: Vec<&Entry<'_>> = entries.iter().collect();
    sorted.sort_by(|one, other| one.key.cmp(&other.key));
    for pair in sorted.windows(2) {
        if let [first, second] = pair
            && first.key == second.key
        {
            let line = document.line(span_at(first.offset).start);
            let message = format!(
                "key {} is already given in line {line}: expected each key once",
                quote(&second.key)
            );
            document.refuse(span_at(second.offset), message);
        }
    }
}

fn check_tag(tag: Option<&Tag>, wanted: &str, at: u32) -> Result<(), Abort> {
    match tag {
        Some(tag) if tag.core_suffix() != Some(wanted) => Err(unsupported_tag(tag, at)),
        _ => Ok(()),
    }
}

fn scalar_value<'a>(
    text: Cow<'a, str>,
    style: ScalarStyle,
    tag: Option<&Tag>,
    at: u32,
) -> Result<Value<'a>, Abort> {
    match tag {
        None if style == ScalarStyle::Plain => Ok(scalar::plain(text)),
        None => Ok(Value::Text(text)),
        Some(tag) if tag.core_suffix() == Some("str") => Ok(Value::Text(text)),
        Some(tag) => Err(unsupported_tag(tag, at)),
    }
}

fn unsupported_tag(tag: &Tag, at: u32) -> Abort {
    let message = format!("tag {}: expected no tags", quote(&tag.original()));
    Abort::Document(at, message)
}

fn offset_of(byte: usize) -> u32 {
    u32::try_from(byte).unwrap_or(u32::MAX)
}

/// The empty span at an offset, as findings need it.
pub(super) fn span_at(offset: u32) -> std::ops::Range<usize> {
    let at = usize::try_from(offset).unwrap_or(usize::MAX);
    at..at
}
