//! Tables and properties of the scanner: whole equals cut, and the tree decides what is told.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Root,
    Model,
    Usage,
    Count,
    Text,
    Item,
    Items,
}

const USAGE: Node<Field> = Node::object(&[("n", Node::leaf(Field::Count))]).named(Field::Usage);
const ITEM: Node<Field> = Node::object(&[("k", Node::leaf(Field::Item))]);
static ROOT: Node<Field> = Node::object(&[
    ("model", Node::leaf(Field::Model)),
    ("usage", USAGE),
    ("text", Node::text(Field::Text)),
    ("items", Node::array(&ITEM).named(Field::Items)),
])
.named(Field::Root);

/// What was told, with text pieces summed so that cuts do not show.
#[derive(Debug, Default, PartialEq)]
struct Told {
    lines: Vec<String>,
    n_text_bytes: usize,
}

impl Visitor<Field> for Told {
    fn scalar(&mut self, field: Field, value: Value<'_>, span: Span) {
        let line = format!("{field:?}={value:?}@{}..{}", span.start, span.end);
        self.lines.push(line);
    }
    fn open(&mut self, field: Field, container: Container, at: u64) {
        self.lines
            .push(format!("open {field:?} {container:?}@{at}"));
    }
    fn close(&mut self, field: Field, _: Container, at: u64, is_empty: bool) {
        let empty = if is_empty { " empty" } else { "" };
        self.lines.push(format!("close {field:?}@{at}{empty}"));
    }
    fn text(&mut self, _: Field, n_bytes: usize) {
        self.n_text_bytes += n_bytes;
    }
    fn passed(&mut self, passed: Passed, span: Span) {
        let line = format!("passed {passed:?}@{}..{}", span.start, span.end);
        self.lines.push(line);
    }
    fn document(&mut self) {
        self.lines.push("document".to_owned());
    }
}

fn scan(pieces: &[&[u8]]) -> (Told, bool, bool) {
    let mut told = Told::default();
    let mut scanner = Scanner::new(&ROOT);
    for piece in pieces {
        scanner.push(piece, &mut told);
    }
    scanner.finish(&mut told);
    (told, scanner.is_malformed(), scanner.is_complete())
}

fn assert_chunk_blind(body: &[u8]) {
    let whole = scan(&[body]);
    let bytes: Vec<&[u8]> = body.chunks(1).collect();
    assert_eq!(scan(&bytes), whole, "byte by byte");
    for cut in 0..=body.len() {
        let (head, tail) = body.split_at(cut);
        assert_eq!(scan(&[head, tail]), whole, "cut at {cut}");
    }
}

#[test]
fn wanted_values_are_told_with_their_offsets() {
    let body =
        br#" {"model":"m\u00e9\ud83d\ude00","other":[{"model":"no"}],"usage":{"n":12,"x":1.5},
        "text":"a\"b","items":[{"k":null},7,{"k":true}]} "#;
    let (told, is_malformed, is_complete) = scan(&[body]);
    assert_eq!(
        told.lines,
        [
            "open Root Object@1",
            "Model=Text(\"mé😀\")@10..31",
            "open Usage Object@65",
            "Count=Number(\"12\")@70..72",
            "passed Number@77..80",
            "close Usage@80",
            "passed Text@98..104",
            "open Items Array@113",
            "Item=Null@119..123",
            "passed Number@125..126",
            "Item=Bool(true)@132..136",
            "close Items@137",
            "close Root@138",
            "document",
        ]
    );
    assert_eq!(told.n_text_bytes, 4);
    assert!(!is_malformed && is_complete);
    assert_chunk_blind(body);
}

#[test]
fn odd_bodies_end_in_order() {
    for (body, is_malformed, is_complete) in [
        ("", false, false),
        ("{}", false, true),
        ("\u{feff}{}", false, true),
        ("{\"usage\":\"x\"}", false, true),
        ("{\"usage\":[1,2]}", false, true),
        ("{\"usage\":{\"n\":1", false, false),
        ("12", false, true),
        ("{} {} [1]", false, true),
        ("{\"a\" 1}", true, true),
        ("{\"a\":}", true, true),
        ("{\"a\":1,}", true, true),
        ("]", true, false),
        ("{\"model\":nope}", true, true),
        ("{\"model\":\"\\u12\"}", true, true),
        ("{\"mo\\u0064el\":\"x\"}", false, true),
        ("{\"items\":[}", true, false),
    ] {
        let (_, malformed, complete) = scan(&[body.as_bytes()]);
        assert_eq!((malformed, complete), (is_malformed, is_complete), "{body}");
        assert_chunk_blind(body.as_bytes());
    }
}

#[test]
fn escaped_keys_are_the_keys_they_mean() {
    let body = br#"{"\u006dodel":"a","mod\u00e9l":"b","model\n":"c","\u00":1,"m\u006fdel":"d"}"#;
    let (told, ..) = scan(&[body]);
    let models = told.lines.iter().filter(|l| l.starts_with("Model="));
    let models: Vec<&str> = models.map(|l| &l[..15]).collect();
    assert_eq!(models, ["Model=Text(\"a\")", "Model=Text(\"d\")"]);
    assert_chunk_blind(body);
}

#[test]
fn the_scalar_at_hand_is_known_from_its_first_byte() {
    let body = br#"{"model":"mm","usage":{"n":12},"other":"x"}"#;
    let mut scanner = Scanner::new(&ROOT);
    let at_hand: Vec<_> = body
        .iter()
        .map(|byte| {
            scanner.push(&[*byte], &mut Told::default());
            scanner.at_hand()
        })
        .collect();
    for (at, found) in at_hand.into_iter().enumerate() {
        let expected = match at {
            9..12 => Some((Field::Model, 9)),
            27..29 => Some((Field::Count, 27)),
            _ => None,
        };
        assert_eq!(found, expected, "{at}");
    }
}

#[test]
fn long_scalars_are_too_long_and_depth_is_harmless() {
    let long = format!(r#"{{"model":"{}"}}"#, "x".repeat(SCALAR_BYTES_MAX + 1));
    assert!(scan(&[long.as_bytes()]).0.lines[1].starts_with("Model=TooLong"));
    assert_chunk_blind(long.as_bytes());
    let deep = format!(
        r#"{{"x":{}1{},"model":"m"}}"#,
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    let (told, is_malformed, is_complete) = scan(&[deep.as_bytes()]);
    assert!(told.lines.iter().any(|l| l.starts_with("Model=Text")));
    assert!(!is_malformed && is_complete);
    scan(&["{\"items\":[".repeat(100_000).as_bytes()]);
}

#[test]
fn strings_unescape_as_serde_json_does() {
    for text in [
        r#""""#,
        r#""\"\\\/\b\f\n\r\t""#,
        r#""\u0041é\uD83D\uDE00!""#,
        r#""a\u0000b""#,
    ] {
        let expected: String = serde_json::from_str(text).unwrap();
        let body = format!(r#"{{"model":{text}}}"#);
        let (told, ..) = scan(&[body.as_bytes()]);
        let end = 9 + text.len();
        assert_eq!(told.lines[1], format!("Model=Text({expected:?})@9..{end}"));
        assert_chunk_blind(body.as_bytes());
    }
    for broken in [
        r#""\ud83d""#,
        r#""\ude00x""#,
        r#""\ud83dx""#,
        r#""\ud83d\ud83d\ude00""#,
    ] {
        let body = format!(r#"{{"model":{broken}}}"#);
        assert!(scan(&[body.as_bytes()]).0.lines[1].contains('\u{fffd}'));
        assert_chunk_blind(body.as_bytes());
    }
}

proptest! {
    #[test]
    fn any_bytes_in_any_chunks(
        body in "(\\PC|[\\[\\]{}\",:\\\\u0-9 ]|\"model\":|\"usage\":\\{|\"items\":\\[){0,60}",
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let body = body.as_bytes();
        let mut cuts: Vec<usize> = cuts.iter().map(|c| c.index(body.len() + 1)).collect();
        cuts.extend([0, body.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|w| &body[w[0]..w[1]]).collect();
        prop_assert_eq!(scan(&pieces), scan(&[body]));
    }

    #[test]
    fn any_garbage_is_survived(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let bytes: Vec<&[u8]> = body.chunks(1).collect();
        prop_assert_eq!(scan(&bytes), scan(&[body.as_slice()]));
    }
}
