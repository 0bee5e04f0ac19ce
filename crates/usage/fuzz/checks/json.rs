//! The JSON scanner: what it tells does not depend on chunks, and is what `serde_json` reads.

use serde_json::Value as Json;
use tollmesh_usage::json::grammar::Grammar;
use tollmesh_usage::json::{Container, Node, Scanner, Span, Value, Visitor};

use super::Input;

static ROOT: Node<&str> = Node::object(&[
    ("model", Node::leaf("model")),
    (
        "usage",
        Node::object(&[("n", Node::leaf("n"))]).named("usage"),
    ),
    ("text", Node::text("text")),
    ("items", Node::array(&Node::leaf("item")).named("items")),
])
.named("root");

/// What was told, with the pieces of a text summed.
#[derive(Debug, Default, PartialEq)]
struct Told {
    lines: Vec<String>,
    model: Option<String>,
    is_model_too_long: bool,
    n_text_bytes: usize,
}

impl Visitor<&str> for Told {
    fn scalar(&mut self, field: &str, value: Value<'_>, span: Span) {
        self.lines.push(format!("{field} {value:?} {span:?}"));
        if field == "model" {
            self.model = match value {
                Value::Text(text) => Some(text.to_owned()),
                _ => None,
            };
            self.is_model_too_long = value == Value::TooLong;
        }
    }

    fn open(&mut self, field: &str, container: Container, at: u64) {
        self.lines.push(format!("{field} {container:?} from {at}"));
    }

    fn close(&mut self, field: &str, container: Container, at: u64, is_empty: bool) {
        self.lines
            .push(format!("{field} {container:?} to {at} {is_empty}"));
        if field == "model" {
            self.model = None;
            self.is_model_too_long = false;
        }
    }

    fn text(&mut self, _: &str, n_bytes: usize) {
        self.n_text_bytes += n_bytes;
    }
}

/// Checks one input.
pub fn check(input: &[u8]) {
    let Some(input) = Input::new(input) else {
        return;
    };
    let whole = scan([input.body].into_iter());
    assert_eq!(scan(input.chunks()), whole, "chunks show");
    let Ok(Json::Object(members)) = serde_json::from_slice::<Json>(input.body) else {
        return;
    };
    let (told, is_malformed, is_whole) = whole;
    assert!(!is_malformed && is_whole);
    if !told.is_model_too_long {
        let model = members.get("model").and_then(Json::as_str);
        assert_eq!(told.model.as_deref(), model);
    }
}

fn scan<'a>(chunks: impl Iterator<Item = &'a [u8]>) -> (Told, bool, bool) {
    let mut told = Told::default();
    let mut scanner = Scanner::new(&ROOT);
    let mut grammar = Grammar::new();
    for chunk in chunks {
        scanner.push(chunk, &mut told);
        grammar.push(chunk);
    }
    scanner.finish(&mut told);
    (told, scanner.is_malformed(), grammar.is_whole())
}
