//! YAML as a tree in which every value knows where it stands.
//!
//! The tree is small on purpose: files are bounded in bytes, values and depth, so that neither a huge file nor a few lines
//! of nested aliases can take the memory of a control plane.

use std::collections::HashMap;
use std::sync::Arc;

use granit_parser::{Event, Marker, Options, Parser, ScalarStyle, Tag};

use crate::diagnostic::{Diagnostic, Location, Severity};

/// Most values of one file, copies made by aliases included.
pub(crate) const MAX_VALUES: usize = 200_000;
/// Deepest nesting; the deepest field of any kind is at 11.
pub(crate) const MAX_DEPTH: usize = 64;
/// Most keys of one mapping.
const MAX_KEYS: usize = 1024;
/// After so many syntax errors the rest of a file is not looked at.
const MAX_SYNTAX_ERRORS: usize = 100;

/// Line and column from 1, in characters.
pub(crate) type Pos = (u32, u32);

/// A value and its place: its own beginning, or that of its key when it begins on a later line.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub at: Pos,
    pub value: Value,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Scalar(Scalar, Arc<str>),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scalar {
    Null,
    Bool,
    Number,
    Text,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Key {
    pub text: Arc<str>,
    pub at: Pos,
}

impl Node {
    pub(crate) fn empty_map(at: Pos) -> Self {
        Self { at, value: Value::Map(Vec::new()) }
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self.value, Value::Scalar(Scalar::Null, _))
    }

    /// The value of a key, when this is a mapping that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|(k, _)| &*k.text == key).map(|(_, node)| node),
            _ => None,
        }
    }

    /// The text, when this is one.
    pub(crate) fn text(&self) -> Option<&Arc<str>> {
        match &self.value {
            Value::Scalar(Scalar::Text, text) => Some(text),
            _ => None,
        }
    }

    /// What it is, for messages.
    pub(crate) fn describe(&self) -> String {
        match &self.value {
            Value::Scalar(Scalar::Null, _) => "nothing".to_owned(),
            Value::Scalar(Scalar::Bool, text) => format!("the truth value {text}"),
            Value::Scalar(Scalar::Number, text) => format!("the number {}", clip(text)),
            Value::Scalar(Scalar::Text, text) => format!("the text {:?}", clip(text)),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a mapping".to_owned(),
        }
    }
}

/// Keeps messages short whatever a file holds.
pub(crate) fn clip(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// One document of a file.
pub(crate) struct Document {
    pub root: Node,
    /// Where its first line is.
    pub at: Pos,
    /// It ends in a syntax error; [`Self::root`] is what came before.
    pub broken: bool,
}

/// Reads all documents of a text; one that is broken does not hide the others.
pub(crate) fn read(file: &Arc<str>, text: &str, out: &mut Vec<Diagnostic>) -> Vec<Document> {
    let mut options = Options::default();
    options.set_emit_comments(false);
    let mut parser = Parser::new_from_str_with_options(text, options);
    let mut builder = Builder { file, out, stack: Vec::new(), root: None, anchors: HashMap::new(), values: 0 };
    let mut documents = Vec::new();
    let mut start = (1, 1);
    let mut syntax_errors = 0;
    while let Some(next) = parser.next_event() {
        let stop = match next {
            Ok((event, span)) => match event {
                Event::StreamEnd => break,
                Event::DocumentStart(..) => {
                    start = pos(&span.start);
                    builder.begin();
                    continue;
                }
                Event::DocumentEnd => {
                    if let Some(root) = builder.finish() {
                        documents.push(Document { at: first_line(&root, start), root, broken: false });
                    }
                    continue;
                }
                event => match builder.take(event, pos(&span.start)) {
                    Ok(()) => continue,
                    Err(Full) => true,
                },
            },
            Err(error) => {
                let at = pos(error.marker());
                let info = error.info();
                let code = if info.contains("limit exceeded") { "V0003" } else { "V0001" };
                builder.fault(code, at, format!("YAML syntax: {info}"), syntax_mend(&info));
                syntax_errors += 1;
                syntax_errors >= MAX_SYNTAX_ERRORS
            }
        };
        if let Some(root) = builder.abandon() {
            documents.push(Document { at: first_line(&root, start), root, broken: true });
        }
        if stop || !parser.proceed_next_document().unwrap_or(false) {
            break;
        }
    }
    documents
}

fn pos(marker: &Marker) -> Pos {
    let cut = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    (cut(marker.line()), cut(marker.col().saturating_add(1)))
}

/// Documents are pointed at by their first key, which a reader finds sooner than the marker before it.
fn first_line(root: &Node, start: Pos) -> Pos {
    match &root.value {
        Value::Map(entries) => entries.first().map_or(start, |(key, _)| key.at),
        _ => root.at,
    }
}

fn syntax_mend(info: &str) -> String {
    let text = if info.contains("tab") {
        "indent with spaces; YAML does not take tabs"
    } else if info.contains("quote") || info.contains("scalar") {
        "close the quotes, or quote a value that holds ': ', '#' or begins with one of *&!|>%@`[]{}"
    } else {
        "mend the line or the one before it: check indentation, the space after ':' and '-', and open quotes or brackets"
    };
    text.to_owned()
}

/// The budget is spent; nothing more is read of the file.
struct Full;

struct Builder<'a> {
    file: &'a Arc<str>,
    out: &'a mut Vec<Diagnostic>,
    stack: Vec<Frame>,
    root: Option<Node>,
    anchors: HashMap<usize, (Node, usize)>,
    values: usize,
}

struct Frame {
    at: Pos,
    anchor: usize,
    /// [`Builder::values`] when it began.
    before: usize,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Map { entries: Vec<(Key, Node)>, key: Option<Option<Key>>, skip: bool },
}

impl Builder<'_> {
    fn fault(&mut self, code: &'static str, at: Pos, reason: String, mend: String) {
        let at = Location { file: Arc::clone(self.file), line: at.0, column: at.1 };
        self.out.push(Diagnostic::new(Severity::Error, code, &at, reason, mend));
    }

    fn begin(&mut self) {
        self.stack.clear();
        self.root = None;
        self.anchors.clear();
    }

    fn finish(&mut self) -> Option<Node> {
        self.stack.clear();
        self.root.take()
    }

    /// Closes everything that is open and gives what there is.
    fn abandon(&mut self) -> Option<Node> {
        while let Some(frame) = self.stack.pop() {
            let node = self.close(frame);
            self.add(node, false);
        }
        self.root.take()
    }

    fn take(&mut self, event: Event<'_>, at: Pos) -> Result<(), Full> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let kind = self.resolve(&text, style, tag.as_deref(), at);
                self.spend(1, at)?;
                let node = Node { at, value: Value::Scalar(kind, text.as_ref().into()) };
                self.anchor(anchor, &node, 1);
                self.add(node, style == ScalarStyle::Plain && text.is_empty());
            }
            Event::SequenceStart(_, anchor, _) => self.open(at, anchor, Content::List(Vec::new()))?,
            Event::MappingStart(_, anchor, _) => {
                self.open(at, anchor, Content::Map { entries: Vec::new(), key: None, skip: false })?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(frame) = self.stack.pop() {
                    let (anchor, before) = (frame.anchor, frame.before);
                    let node = self.close(frame);
                    self.anchor(anchor, &node, self.values - before);
                    self.add(node, false);
                }
            }
            Event::Alias(id) => match self.anchors.get(&id).cloned() {
                Some((mut node, size)) => {
                    self.spend(size, at)?;
                    node.at = at;
                    self.add(node, false);
                }
                // Inside of what it names.
                None => {
                    self.fault(
                        "V0001",
                        at,
                        "this alias stands inside of what it names".to_owned(),
                        "write the value out".to_owned(),
                    );
                    self.add(Node { at, value: Value::Scalar(Scalar::Null, "".into()) }, false);
                }
            },
            _ => {}
        }
        Ok(())
    }

    fn spend(&mut self, values: usize, at: Pos) -> Result<(), Full> {
        self.values = self.values.saturating_add(values);
        if self.values > MAX_VALUES {
            self.fault(
                "V0003",
                at,
                format!("the file holds more than {MAX_VALUES} values; the rest is not read"),
                "split it into several files, and do not multiply values by aliases".to_owned(),
            );
            return Err(Full);
        }
        Ok(())
    }

    fn open(&mut self, at: Pos, anchor: usize, content: Content) -> Result<(), Full> {
        if self.stack.len() >= MAX_DEPTH {
            self.fault(
                "V0003",
                at,
                format!("values are nested more than {MAX_DEPTH} deep; the rest of the file is not read"),
                "no kind has fields as deep as that: check the indentation".to_owned(),
            );
            return Err(Full);
        }
        let before = self.values;
        self.spend(1, at)?;
        self.stack.push(Frame { at, anchor, before, content });
        Ok(())
    }

    fn close(&mut self, frame: Frame) -> Node {
        let value = match frame.content {
            Content::List(items) => Value::List(items),
            Content::Map { entries, .. } => Value::Map(self.merge(entries)),
        };
        Node { at: frame.at, value }
    }

    fn anchor(&mut self, id: usize, node: &Node, size: usize) {
        if id != 0 {
            self.anchors.insert(id, (node.clone(), size));
        }
    }

    /// Puts a value where it belongs; `absent` is the empty place after `key:`.
    fn add(&mut self, mut node: Node, absent: bool) {
        let Some(frame) = self.stack.last_mut() else {
            self.root = Some(node);
            return;
        };
        let (entries, key) = match &mut frame.content {
            Content::List(items) => return items.push(node),
            Content::Map { skip: true, .. } => return,
            Content::Map { entries, key, .. } => (entries, key),
        };
        match key.take() {
            None => {
                let named = match &node.value {
                    Value::Scalar(_, text) => Some(Key { text: Arc::clone(text), at: node.at }),
                    _ => None,
                };
                let bad = named.is_none();
                *key = Some(named);
                if bad {
                    let mend = "a key is a plain text; quote a value that begins with '{' or '['".to_owned();
                    self.fault("V0005", node.at, "a mapping or a list cannot be a key".to_owned(), mend);
                }
            }
            Some(None) => {}
            Some(Some(key)) => {
                if absent || node.at.0 != key.at.0 {
                    node.at = key.at;
                }
                match entries.iter().find(|(k, _)| k.text == key.text && &*k.text != "<<") {
                    // Said once; the rest of the mapping is not looked at.
                    None if entries.len() == MAX_KEYS => {
                        let reason = format!("a mapping holds more than {MAX_KEYS} keys");
                        self.fault("V0003", key.at, reason, "split it".to_owned());
                        self.skip_rest();
                    }
                    None => entries.push((key, node)),
                    Some((first, _)) => {
                        let line = first.at.0;
                        self.fault(
                            "V0004",
                            key.at,
                            format!("{:?} is written twice in one mapping, first in line {line}", clip(&key.text)),
                            "keep one of the two".to_owned(),
                        );
                    }
                }
            }
        }
    }

    /// Makes the innermost mapping swallow whatever follows in it.
    fn skip_rest(&mut self) {
        if let Some(Frame { content: Content::Map { skip, .. }, .. }) = self.stack.last_mut() {
            *skip = true;
        }
    }

    /// Expands `<<`, as Kubernetes' own reader does. What is written beside it wins.
    fn merge(&mut self, entries: Vec<(Key, Node)>) -> Vec<(Key, Node)> {
        if !entries.iter().any(|(key, _)| &*key.text == "<<") {
            return entries;
        }
        let (merges, mut kept): (Vec<_>, Vec<_>) = entries.into_iter().partition(|(key, _)| &*key.text == "<<");
        for (key, node) in merges {
            let maps = match node.value {
                Value::List(items) => items,
                _ => vec![node],
            };
            for map in maps {
                match map.value {
                    Value::Map(more) => {
                        for (key, node) in more {
                            if kept.len() < MAX_KEYS && !kept.iter().any(|(k, _)| k.text == key.text) {
                                kept.push((key, node));
                            }
                        }
                    }
                    _ => self.fault(
                        "V0005",
                        key.at,
                        "only a mapping can be merged with <<".to_owned(),
                        "name an anchor of a mapping, <<: *name".to_owned(),
                    ),
                }
            }
        }
        kept
    }

    fn resolve(&mut self, text: &str, style: ScalarStyle, tag: Option<&Tag>, at: Pos) -> Scalar {
        if let Some(tag) = tag {
            match tag.core_suffix() {
                Some("str") => return Scalar::Text,
                Some(_) => return plain(text),
                None if tag.suffix().is_empty() => return Scalar::Text,
                None => {
                    self.fault(
                        "V0005",
                        at,
                        format!("the tag {} has no meaning here", clip(&tag.original())),
                        "remove it".to_owned(),
                    );
                    return Scalar::Text;
                }
            }
        }
        if style == ScalarStyle::Plain { plain(text) } else { Scalar::Text }
    }
}

/// The core schema of YAML 1.2 (§10.3.2).
fn plain(text: &str) -> Scalar {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Scalar::Null,
        "true" | "True" | "TRUE" | "false" | "False" | "FALSE" => return Scalar::Bool,
        _ => {}
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let number = match unsigned.as_bytes() {
        [b'0', b'x', hex @ ..] => !hex.is_empty() && hex.iter().all(u8::is_ascii_hexdigit),
        [b'0', b'o', octal @ ..] => !octal.is_empty() && octal.iter().all(|b| (b'0'..=b'7').contains(b)),
        b".inf" | b".Inf" | b".INF" | b".nan" | b".NaN" | b".NAN" => true,
        bytes => {
            bytes.first().is_some_and(|b| b.is_ascii_digit() || *b == b'.')
                && bytes.iter().any(u8::is_ascii_digit)
                && unsigned.parse::<f64>().is_ok()
        }
    };
    if number { Scalar::Number } else { Scalar::Text }
}
