//! The `model` of a `multipart/form-data` body (RFC 7578), as audio endpoints take it.
//!
//! Lines are looked at by their first bytes only; files, whose lines may have any length, pass at
//! the speed of `memchr`.

use memchr::memchr;

use super::RequestFacts;

/// How much of a line is kept, in bytes: enough for a boundary, for the header that names a field
/// and for the fields that are read. What a longer line says is not read.
const LINE_BYTES_MAX: usize = 512;

/// A reader of one body.
pub(super) struct Multipart {
    /// The line that ends a part: two dashes and the boundary.
    delimiter: Vec<u8>,
    place: Place,
    /// The current line as far as it came, without its end.
    line: Vec<u8>,
    is_line_too_long: bool,
}

/// Where in the body the next line is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Before the first part, or in a part that is not read.
    Elsewhere,
    /// Among a part's headers.
    Headers(Option<Field>),
    /// At the first line of a part that is read.
    Value(Field),
}

/// A field that is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Field {
    Model,
    Stream,
}

// === impl Multipart ===

impl Multipart {
    /// A reader of bodies with that `content-type`; `None` for other types.
    pub(super) fn new(content_type: &str) -> Option<Multipart> {
        let (essence, parameters) = content_type.split_once(';')?;
        if !essence.trim().eq_ignore_ascii_case("multipart/form-data") {
            return None;
        }
        let boundary = parameter(parameters, "boundary")?;
        Some(Multipart {
            delimiter: [b"--", boundary.as_bytes()].concat(),
            place: Place::Elsewhere,
            line: Vec::new(),
            is_line_too_long: false,
        })
    }

    /// Takes the next bytes.
    pub(super) fn push(&mut self, chunk: &[u8], facts: &mut RequestFacts) {
        let mut rest = chunk;
        while let Some(end) = memchr(b'\n', rest) {
            let (line, behind) = rest.split_at_checked(end).unwrap_or_default();
            self.keep(line);
            self.end_line(facts);
            rest = behind.get(1..).unwrap_or_default();
        }
        self.keep(rest);
    }

    fn keep(&mut self, piece: &[u8]) {
        let room = LINE_BYTES_MAX - self.line.len().min(LINE_BYTES_MAX);
        self.line
            .extend_from_slice(piece.get(..room).unwrap_or(piece));
        self.is_line_too_long |= piece.len() > room;
    }

    fn end_line(&mut self, facts: &mut RequestFacts) {
        let line = self.line.strip_suffix(b"\r").unwrap_or(&self.line);
        let is_delimiter = line.starts_with(&self.delimiter) && !self.is_line_too_long;
        self.place = match self.place {
            _ if is_delimiter => Place::Headers(None),
            Place::Headers(Some(field)) if line.is_empty() => Place::Value(field),
            Place::Headers(None) if line.is_empty() => Place::Elsewhere,
            Place::Headers(field) => Place::Headers(field.or_else(|| field_of(line))),
            Place::Value(field) => {
                if !self.is_line_too_long {
                    field.read(line, facts);
                }
                Place::Elsewhere
            }
            Place::Elsewhere => Place::Elsewhere,
        };
        self.line.clear();
        self.is_line_too_long = false;
    }
}

/// The field that a part's header names, if it is one that is read.
fn field_of(header: &[u8]) -> Option<Field> {
    let (name, value) = std::str::from_utf8(header).ok()?.split_once(':')?;
    if !name.eq_ignore_ascii_case("content-disposition") {
        return None;
    }
    match parameter(value, "name")?.as_str() {
        "model" => Some(Field::Model),
        "stream" => Some(Field::Stream),
        _ => None,
    }
}

/// The value of `name=value` or `name="value"` among parameters that semicolons part; the first,
/// where there are several. Within quotes nothing parts, and `\"` does not end them (RFC 2183, 2,
/// with the quoted strings of RFC 822, 3.3).
fn parameter(parameters: &str, name: &str) -> Option<String> {
    let value = split_unquoted(parameters).find_map(|parameter| {
        let (key, value) = parameter.split_once('=')?;
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim())
    })?;
    let unquoted = value.strip_prefix('"').and_then(|v| v.strip_suffix('"'));
    Some(unquoted.map_or(value.to_owned(), without_escapes)).filter(|value| !value.is_empty())
}

/// What semicolons part that do not stand within quotes.
fn split_unquoted(text: &str) -> impl Iterator<Item = &str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    text.split(move |c| {
        let is_end = c == ';' && !is_quoted;
        is_quoted ^= c == '"' && !is_escaped;
        is_escaped = c == '\\' && is_quoted && !is_escaped;
        is_end
    })
}

/// A quoted string's text.
fn without_escapes(quoted: &str) -> String {
    let mut is_escaped = false;
    let is_kept = |c: &char| {
        is_escaped = *c == '\\' && !is_escaped;
        !is_escaped
    };
    quoted.chars().filter(is_kept).collect()
}

// === impl Field ===

impl Field {
    fn read(self, value: &[u8], facts: &mut RequestFacts) {
        let Ok(value) = std::str::from_utf8(value) else {
            return;
        };
        match self {
            Field::Model => facts.model = Some(value.to_owned()),
            // FastAPI and its like read booleans of a form in these spellings.
            Field::Stream => {
                let truths = ["true", "1", "on", "yes"];
                facts.streams = truths.iter().any(|t| value.eq_ignore_ascii_case(t));
            }
        }
    }
}
