//! Whether an event of a stream is the extra one that carries the usage.

use memchr::memchr_iter;

use crate::json::grammar::Grammar;
use crate::json::{Container, Node, Scanner, Span, Value, Visitor};

/// Whether the event (its lines with their ends) is the usage event of a chat completion: one
/// JSON object whose `choices` is an empty array, whose `usage` is an object, and which tells no
/// `error`. Hosts that attach usage to the last event with content are therefore left alone.
pub(super) fn is_usage_event(event: &[u8]) -> bool {
    may_have_empty_choices(event) && Verdict::of(event).is_usage_event()
}

/// A cheap test that nearly every other event fails: some key has `[]`.
fn may_have_empty_choices(event: &[u8]) -> bool {
    memchr_iter(b'[', event).any(|at| {
        let before = event.get(..at).unwrap_or_default();
        let after = event.get(at + 1..).unwrap_or_default();
        let inside = after.trim_ascii_start();
        let gap = after.get(..after.len() - inside.len()).unwrap_or_default();
        // An array that goes on in another data line is left to the real reading.
        let may_be_empty = inside.starts_with(b"]") || gap.iter().any(|b| b"\r\n".contains(b));
        may_be_empty && before.trim_ascii_end().ends_with(b":")
    })
}

#[derive(Clone, Copy)]
enum Field {
    Choices,
    Usage,
    Error,
}

static SCHEMA: Node<Field> = Node::object(&[
    ("choices", Node::leaf(Field::Choices)),
    ("usage", Node::leaf(Field::Usage)),
    ("error", Node::leaf(Field::Error)),
]);

/// What the event's data says; of a key that is there twice, the last counts.
#[derive(Default)]
struct Verdict {
    is_whole: bool,
    has_empty_choices: bool,
    has_usage: bool,
    has_error: bool,
}

// === impl Verdict ===

impl Verdict {
    fn of(event: &[u8]) -> Verdict {
        let mut verdict = Verdict::default();
        let mut scanner = Scanner::new(&SCHEMA);
        let mut grammar = Grammar::new();
        for line in event.split(|byte| matches!(byte, b'\n' | b'\r')) {
            if let Some(data) = line.strip_prefix(b"data:") {
                for piece in [data, b"\n"] {
                    scanner.push(piece, &mut verdict);
                    grammar.push(piece);
                }
            }
        }
        verdict.is_whole = grammar.is_whole();
        verdict
    }

    fn is_usage_event(&self) -> bool {
        self.is_whole && self.has_empty_choices && self.has_usage && !self.has_error
    }
}

impl Visitor<Field> for Verdict {
    fn scalar(&mut self, field: Field, value: Value<'_>, _: Span) {
        match field {
            Field::Choices => self.has_empty_choices = false,
            Field::Usage => self.has_usage = false,
            Field::Error => self.has_error = value != Value::Null,
        }
    }

    fn close(&mut self, field: Field, container: Container, _: u64, is_empty: bool) {
        match field {
            Field::Choices => self.has_empty_choices = is_empty && container == Container::Array,
            Field::Usage => self.has_usage = container == Container::Object,
            Field::Error => self.has_error = true,
        }
    }
}
