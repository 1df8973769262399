//! YAML to a tree in which every scalar is a string and every node knows its bytes.
//!
//! The only module that knows the YAML library. The library's scanner and its event parser are used
//! rather than its serde layer, because only they tell the bytes of keys, keep duplicate keys and
//! show the tokens that twemproxy refuses. Nothing here recurses: nesting is a stack of its own.

use std::ops::Range;

use granit_parser::{Event, Options, Parser, ScanError, Scanner, Span, StrInput, TokenType};

use crate::limits;

/// Collections in collections that are followed; deeper ones are an error. twemproxy reads two
/// levels, so this is only what a helpful message needs.
const NESTING_MAX: usize = 32;

/// Index of a node in its document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NodeId(usize);

/// One scalar, mapping or sequence.
#[derive(Debug)]
pub(super) struct Node {
    /// Bytes of a scalar with its quotes; where a collection starts.
    pub(super) span: Range<usize>,
    /// Whether the end of the node was seen; false behind a syntax error.
    pub(super) is_complete: bool,
    /// What it holds.
    pub(super) content: Content,
}

/// What a node holds.
#[derive(Debug)]
pub(super) enum Content {
    /// Text, after quotes and escapes were undone.
    Scalar(String),
    /// Keys and values in the order of the text. A key may come more than once.
    Mapping(Vec<(NodeId, NodeId)>),
    /// Items in the order of the text.
    Sequence(Vec<NodeId>),
    /// A reference to another node, which is not followed.
    Alias,
}

/// A token that is YAML but that twemproxy refuses.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) span: Range<usize>,
    /// What it is called in a message.
    pub(super) what: &'static str,
    /// Whether it is only another way to write what plain lines can say.
    pub(super) is_style: bool,
}

/// Why the text is no YAML, or is too much of it.
#[derive(Debug)]
pub(super) struct SyntaxError {
    pub(super) span: Range<usize>,
    pub(super) message: String,
    pub(super) hint: Option<&'static str>,
    pub(super) fault: Fault,
}

/// The kinds of syntax errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Syntax,
    TooManyNodes,
    TooDeep,
}

/// A text as far as it is YAML.
#[derive(Debug, Default)]
pub(super) struct Document {
    nodes: Vec<Node>,
    /// The node that holds all others, of the first document of the text.
    pub(super) root: Option<NodeId>,
    /// Documents with content.
    pub(super) documents: usize,
    pub(super) refused: Vec<Refused>,
    pub(super) error: Option<SyntaxError>,
}

impl Document {
    pub(super) fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(id.0)
    }

    /// Returns the bytes to show for a node: its own, or those of the first scalar inside.
    pub(super) fn span(&self, id: NodeId) -> Range<usize> {
        let mut at = id;
        // Each step goes one level down, and nesting is bounded.
        for _ in 0..=NESTING_MAX {
            let Some(node) = self.node(at) else { break };
            let inner = match &node.content {
                Content::Mapping(entries) => entries.first().map(|&(key, _)| key),
                Content::Sequence(items) => items.first().copied(),
                Content::Scalar(_) | Content::Alias => None,
            };
            match inner {
                Some(inner) => at = inner,
                None => return node.span.clone(),
            }
        }
        self.node(id).map_or(0..0, |node| node.span.clone())
    }

    /// Reads a text. Errors are in the document, which holds what came before them.
    pub(super) fn read(text: &str) -> Self {
        let mut document = Self::default();
        if let Some(error) = control_character(text) {
            document.error = Some(error);
            return document;
        }
        document.refused = refused_tokens(text);
        Builder { text, document: &mut document, open: Vec::new() }.run();
        document
    }
}

/// A collection whose end has not come.
struct Open {
    id: NodeId,
    key: Option<NodeId>,
}

struct Builder<'a> {
    text: &'a str,
    document: &'a mut Document,
    open: Vec<Open>,
}

impl Builder<'_> {
    fn run(mut self) {
        let text = self.text;
        for item in Parser::new_from_str_with_options(text, options()) {
            let (event, span) = match item {
                Ok(item) => item,
                Err(error) => {
                    self.document.error = Some(syntax_error(text, &error));
                    return;
                }
            };
            let span = bytes(text, &span);
            match event {
                Event::Scalar(value, ..) => {
                    let span = trim_end(text, span);
                    // The library reports a value that is left out as a tilde.
                    let is_left_out = span.is_empty() && value == "~";
                    let value = if is_left_out { String::new() } else { value.into_owned() };
                    self.add(span, Content::Scalar(value), true);
                }
                Event::MappingStart(..) => self.begin(span, Content::Mapping(Vec::new())),
                Event::SequenceStart(..) => self.begin(span, Content::Sequence(Vec::new())),
                Event::MappingEnd | Event::SequenceEnd => self.end(),
                Event::Alias(_) | Event::UnresolvedAlias(_) => {
                    self.add(span, Content::Alias, true);
                }
                Event::DocumentStart(..) => self.document.documents += 1,
                Event::StreamStart | Event::StreamEnd | Event::DocumentEnd | Event::Anchor(..) => {}
                // Compiled in only when another crate asks the library for comments.
                #[allow(unreachable_patterns, clippy::wildcard_enum_match_arm)]
                _ => {}
            }
            if self.document.nodes.len() >= limits::CONFIG_NODES_MAX {
                let end = text.len();
                self.document.error = Some(SyntaxError {
                    span: end..end,
                    message: format!("the file has more than {} words", limits::CONFIG_NODES_MAX),
                    hint: None,
                    fault: Fault::TooManyNodes,
                });
                return;
            }
        }
    }

    fn begin(&mut self, span: Range<usize>, content: Content) {
        let id = self.add(span, content, false);
        self.open.push(Open { id, key: None });
    }

    fn end(&mut self) {
        let Some(open) = self.open.pop() else { return };
        if let Some(node) = self.document.nodes.get_mut(open.id.0) {
            node.is_complete = true;
        }
    }

    fn add(&mut self, span: Range<usize>, content: Content, is_complete: bool) -> NodeId {
        let id = NodeId(self.document.nodes.len());
        self.document.nodes.push(Node { span, is_complete, content });
        let Some(parent) = self.open.last_mut() else {
            if self.document.root.is_none() {
                self.document.root = Some(id);
            }
            return id;
        };
        match self.document.nodes.get_mut(parent.id.0).map(|node| &mut node.content) {
            Some(Content::Mapping(entries)) => match parent.key.take() {
                None => parent.key = Some(id),
                Some(key) => entries.push((key, id)),
            },
            Some(Content::Sequence(items)) => items.push(id),
            Some(Content::Scalar(_) | Content::Alias) | None => {}
        }
        id
    }
}

fn options() -> Options {
    granit_parser::options! {
        emit_comments: false,
        emit_unresolved_aliases: true,
        flow_nesting_limit: NESTING_MAX,
        block_nesting_limit: NESTING_MAX,
    }
}

/// Finds the tokens that twemproxy refuses, up to the first syntax error.
fn refused_tokens(text: &str) -> Vec<Refused> {
    let mut refused = Vec::new();
    for token in Scanner::with_options(StrInput::new(text), options()) {
        let Ok(token) = token else { break };
        #[allow(clippy::wildcard_enum_match_arm)]
        let what = match token.token_type() {
            TokenType::VersionDirective(..) => "a version directive",
            TokenType::TagDirective(..) => "a tag directive",
            TokenType::ReservedDirective(..) => "a directive",
            TokenType::DocumentStart => "a document start",
            TokenType::DocumentEnd => "a document end",
            TokenType::FlowSequenceStart => "a list in brackets",
            TokenType::FlowMappingStart => "a mapping in braces",
            TokenType::Alias(_) => "an alias",
            TokenType::Anchor(_) => "an anchor",
            TokenType::Tag(..) => "a tag",
            // The ends of flow collections come with their starts; the rest is twemproxy's YAML.
            _ => continue,
        };
        if refused.len() >= limits::CONFIG_DIAGNOSTICS_MAX {
            break;
        }
        let is_style = matches!(
            token.token_type(),
            TokenType::DocumentStart | TokenType::FlowSequenceStart | TokenType::FlowMappingStart
        );
        let span = trim_end(text, bytes(text, &token.span()));
        refused.push(Refused { span, what, is_style });
    }
    refused
}

/// Finds a character that libyaml, and so twemproxy, does not read, or that ends a line there and
/// not here: a file must not mean two things.
fn control_character(text: &str) -> Option<SyntaxError> {
    let (at, character) = text.char_indices().find(|&(at, character)| match character {
        '\t' | '\n' | '\r' => false,
        '\u{feff}' => at > 0,
        '\u{2028}' | '\u{2029}' | '\u{fffe}' | '\u{ffff}' => true,
        other => other.is_control(),
    })?;
    Some(SyntaxError {
        span: at..at + character.len_utf8(),
        message: format!("the character {} is not allowed", character.escape_unicode()),
        hint: None,
        fault: Fault::Syntax,
    })
}

fn syntax_error(text: &str, error: &ScanError) -> SyntaxError {
    use granit_parser::ErrorKind as Kind;
    const INDENT: &str = "indent the lines of one pool alike, with spaces";
    const QUOTE: &str = "put the value in quotation marks";
    const UNCLOSED: &str = "a quotation mark is not closed";
    let offset = error.marker().byte_offset().unwrap_or(text.len()).min(text.len());
    let mut at = offset;
    let mut fault = Fault::Syntax;
    // The library's words for the usual slips are those of a parser; these are for operators.
    #[allow(clippy::wildcard_enum_match_arm)]
    let (message, hint) = match error.kind() {
        Kind::RecursionLimitExceeded => {
            fault = Fault::TooDeep;
            ("this is nested too deeply".to_owned(), None)
        }
        Kind::TabInIndentation
        | Kind::TabInBlockIndentation
        | Kind::TabNotAllowed
        | Kind::TabInPlainScalar => {
            at = indenting_tab(text, offset).unwrap_or(offset);
            ("a tab cannot indent".to_owned(), Some("indent with spaces"))
        }
        Kind::SimpleKeyExpected => ("a colon is missing on this line".to_owned(), None),
        Kind::UnexpectedCharacter { character } => {
            (format!("a value cannot start with {character}"), Some(QUOTE))
        }
        Kind::MappingValueNotAllowed => ("a colon is not allowed here".to_owned(), Some(INDENT)),
        Kind::InvalidIndentation | Kind::ExpectedBlockMappingKey => {
            ("this does not fit the lines above".to_owned(), Some(INDENT))
        }
        Kind::InvalidQuotedScalarIndent | Kind::UnclosedQuotedScalar => (UNCLOSED.to_owned(), None),
        _ => (error.info(), None),
    };
    SyntaxError { span: at..at, message, hint, fault }
}

/// Finds the tab that indents the line of an offset or one of the next two. The library stops where
/// the value before the tab began.
fn indenting_tab(text: &str, offset: usize) -> Option<usize> {
    let before = text.get(..offset)?;
    let mut start = before.rfind('\n').map_or(0, |at| at + 1);
    for line in text.get(start..)?.split_inclusive('\n').take(3) {
        let indent = line.len() - line.trim_start_matches([' ', '\t']).len();
        if let Some(tab) = line.get(..indent).and_then(|indent| indent.find('\t')) {
            return Some(start + tab);
        }
        start += line.len();
    }
    None
}

fn bytes(text: &str, span: &Span) -> Range<usize> {
    let range = span.byte_range().unwrap_or(text.len()..text.len());
    range.start.min(text.len())..range.end.min(text.len()).max(range.start.min(text.len()))
}

/// Takes white space and line breaks off the end of a span, which may reach to the next token.
fn trim_end(text: &str, span: Range<usize>) -> Range<usize> {
    let kept = text.get(span.clone()).map_or(0, |slice| slice.trim_end().len());
    span.start..span.start + kept
}
