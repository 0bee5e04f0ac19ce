//! Texts that apps and providers choose, as they are shown to people.

use std::borrow::Cow;
use std::fmt::Write as _;

/// What a terminal would obey, or what turns the direction of the text after it
/// (<https://www.unicode.org/reports/tr9/#Explicit_Directional_Embeddings>).
fn acts(c: char) -> bool {
    let turns = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}'
        | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || turns
}

/// The text with what acts on a terminal written out, as `\u{1b}` or `\n`. Where there is any, or what
/// looks as if it had been, backslashes are doubled, so that names that differ still do. Only one that
/// spells `\n`, `\r` or `\t` looks as one with that character: such spellings stand in JSON as well.
pub fn shown(text: &str) -> Cow<'_, str> {
    match text.contains(acts) || text.contains(r"\u{") {
        false => Cow::Borrowed(text),
        true => Cow::Owned(escaped(text, |c| acts(c) || c == '\\')),
    }
}

/// The text with what acts on a terminal written out, where it has several lines, whose ends stay. Its
/// backslashes stay, too: names in it may be [`shown`] already.
pub fn shown_lines(text: &str) -> Cow<'_, str> {
    let is_escaped = |c: char| acts(c) && c != '\n';
    match text.contains(is_escaped) {
        false => Cow::Borrowed(text),
        true => Cow::Owned(escaped(text, is_escaped)),
    }
}

fn escaped(text: &str, is_escaped: impl Fn(char) -> bool) -> String {
    let mut shown = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match is_escaped(c) {
            false => shown.push(c),
            // Writing to a String cannot fail.
            true => drop(match c {
                '\n' | '\r' | '\t' | '\\' => write!(shown, "{}", c.escape_default()),
                other => write!(shown, "{}", other.escape_unicode()),
            }),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_acts_is_written_out() {
        for (text, want) in [
            ("gpt-4o", "gpt-4o"),
            ("größe \"x\" a\\b", "größe \"x\" a\\b"),
            (
                "a\u{1b}[2Jb\u{7}\0\u{7f}\u{9b}",
                "a\\u{1b}[2Jb\\u{7}\\u{0}\\u{7f}\\u{9b}",
            ),
            ("a\r\n\tb", "a\\r\\n\\tb"),
            ("a\u{202e}b", "a\\u{202e}b"),
            // Names that would be shown as others are.
            ("a\\u{202e}b", "a\\\\u{202e}b"),
            (r#"{"a":"b\n"}"#, r#"{"a":"b\n"}"#),
            ("a\\\nb", "a\\\\\\nb"),
        ] {
            assert_eq!(shown(text), want);
        }
        assert_eq!(shown_lines("a\nb\u{1b}\r\n"), "a\nb\\u{1b}\\r\n");
    }
}
