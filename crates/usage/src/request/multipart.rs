//! The `model` of a `multipart/form-data` body (RFC 7578), as audio endpoints take it.
//!
//! Lines are looked at by their first bytes only; files, whose lines may have any length, pass at
//! the speed of `memchr`.
//!
//! Servers do not agree on all forms. What some of them may read otherwise than it is read here is
//! marked as unsure: a `model` that is there twice, a name that hangs on which escapes are undone, a
//! header that is folded or long. Clients send none of these.

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
    /// Whether the part at hand has a `content-disposition`.
    is_disposed: bool,
    /// The model that was named last.
    model: Option<String>,
    /// Whether servers may read it in several ways.
    is_unsure: bool,
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
    /// Behind that line, where the part should end.
    Behind,
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
        let readings = parameters_named(parameters, "boundary");
        let is_extended = is_extended(parameters, "boundary");
        let first = readings.first().map(String::as_str);
        let boundary = first.or(is_extended.then_some(""))?;
        let delimiter = [b"--", boundary.as_bytes()].concat();
        let is_long = delimiter.len() > LINE_BYTES_MAX;
        let differs = readings.iter().any(|reading| reading != boundary);
        Some(Multipart {
            is_unsure: is_extended || is_long || differs,
            delimiter,
            place: Place::Elsewhere,
            line: Vec::new(),
            is_line_too_long: false,
            is_disposed: false,
            model: None,
        })
    }

    /// Whether servers may read it in several ways.
    pub(super) fn is_unsure(&self) -> bool {
        self.is_unsure
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
        let begins_so = line.starts_with(&self.delimiter);
        let is_delimiter = begins_so && !self.is_line_too_long;
        // White space may follow a delimiter, and a header's name may begin as one.
        self.is_unsure |= begins_so && self.is_line_too_long;
        self.is_unsure |= is_delimiter && matches!(self.place, Place::Headers(Some(_)));
        self.is_disposed &= !is_delimiter;
        self.place = match self.place {
            _ if is_delimiter => Place::Headers(None),
            Place::Headers(Some(field)) if line.is_empty() => Place::Value(field),
            Place::Headers(None) if line.is_empty() => Place::Elsewhere,
            Place::Headers(field) => {
                let named = Named::by(line);
                let is_second = self.is_disposed && named.is_disposition;
                self.is_unsure |= named.is_unsure || is_second;
                self.is_disposed |= named.is_disposition;
                Place::Headers(field.or(named.field))
            }
            Place::Value(field) => {
                if !self.is_line_too_long {
                    field.read(line, facts);
                }
                if field == Field::Model {
                    let mut before = self.model.iter();
                    let is_other = before.any(|model| Some(model) != facts.model.as_ref());
                    self.is_unsure |= is_other || self.is_line_too_long;
                    self.model.clone_from(&facts.model);
                }
                Place::Behind
            }
            Place::Behind => {
                self.is_unsure = true;
                Place::Elsewhere
            }
            Place::Elsewhere => Place::Elsewhere,
        };
        self.line.clear();
        self.is_line_too_long = false;
    }
}

/// What a line among a part's headers says of the part's name.
#[derive(Default)]
struct Named {
    is_disposition: bool,
    /// The field that it names, if it is one that is read.
    field: Option<Field>,
    /// Whether servers may find another name there, or some do and others do not.
    is_unsure: bool,
}

impl Named {
    fn by(header: &[u8]) -> Named {
        // Header lines may be folded (RFC 5322, 2.2.3).
        let is_folded = matches!(header.first(), Some(b' ' | b'\t'));
        let header = String::from_utf8_lossy(header);
        let parted = header.split_once(':');
        let value = parted.filter(|(name, _)| name.trim().eq_ignore_ascii_case(DISPOSITION));
        let Some((name, value)) = value else {
            return Named {
                is_unsure: is_folded,
                ..Named::default()
            };
        };
        let readings = parameters_named(value, "name");
        let fields = || readings.iter().map(|reading| Field::named(reading));
        let field = fields().next().flatten();
        let is_unsure = is_folded
            || name.len() != DISPOSITION.len()
            || readings.is_empty()
            || is_extended(value, "name")
            // Python's `email` takes the quotation mark for one within the string.
            || value.contains("\\\\\"")
            || fields().any(|other| other != field);
        Named {
            is_disposition: true,
            // What only some servers take for that field.
            field: field.or_else(|| fields().flatten().next()),
            is_unsure,
        }
    }
}

const DISPOSITION: &str = "content-disposition";

/// The values of `name=value` or `name="value"` among parameters that semicolons part, each in all
/// ways that servers read it. Within quotes nothing parts, and `\"` does not end them (RFC 2183, 2,
/// with the quoted strings of RFC 822, 3.3). Go's `mime` and Python's `email` undo `\"` and `\\`
/// and leave a backslash before a letter; by RFC 822 any is undone.
fn parameters_named(parameters: &str, name: &str) -> Vec<String> {
    let mut values = Vec::new();
    for parameter in split_unquoted(parameters) {
        let Some((key, value)) = parameter.split_once('=') else {
            continue;
        };
        if !key.trim().eq_ignore_ascii_case(name) {
            continue;
        }
        let value = value.trim();
        match value.strip_prefix('"').and_then(|v| v.strip_suffix('"')) {
            Some(quoted) => {
                values.push(without_escapes(quoted, |c| matches!(c, '"' | '\\')));
                values.push(without_escapes(quoted, |_| true));
            }
            None => values.push(value.to_owned()),
        }
    }
    values.retain(|value| !value.is_empty());
    values
}

/// Whether a parameter of that name is there in an extended form (RFC 2231: `name*=`, `name*0=`),
/// which RFC 7578, 4.2, forbids in forms, and some servers read.
fn is_extended(parameters: &str, name: &str) -> bool {
    split_unquoted(parameters).any(|parameter| {
        let key = parameter.split('=').next().unwrap_or_default().trim();
        let plain = key.split('*').next().unwrap_or_default();
        key.len() > plain.len() && plain.eq_ignore_ascii_case(name)
    })
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

/// A quoted string's text, backslashes undone before the characters that say so.
fn without_escapes(quoted: &str, is_undone: impl Fn(char) -> bool) -> String {
    let mut text = String::with_capacity(quoted.len());
    let mut rest = quoted.chars();
    while let Some(c) = rest.next() {
        let escaped = rest
            .clone()
            .next()
            .filter(|next| c == '\\' && is_undone(*next));
        match escaped {
            Some(escaped) => {
                text.push(escaped);
                rest.next();
            }
            None => text.push(c),
        }
    }
    text
}

// === impl Field ===

impl Field {
    fn named(name: &str) -> Option<Field> {
        match name {
            "model" => Some(Field::Model),
            "stream" => Some(Field::Stream),
            _ => None,
        }
    }

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
