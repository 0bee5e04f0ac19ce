//! The text exposition format's label pairs and exact numbers.
//!
//! Escapes as in <https://prometheus.io/docs/instrumenting/exposition_formats/>: in a label's
//! value backslash, double quote and line feed.

use std::fmt::Write;

/// Appends `name="value"`, after a comma where something stands before it.
pub fn push_pair(set: &mut String, name: &str, value: &str) {
    if !set.is_empty() {
        set.push(',');
    }
    set.push_str(name);
    set.push_str("=\"");
    let mut rest = value;
    while let Some(at) = rest.find(['\\', '"', '\n']) {
        let (plain, special) = rest.split_at(at);
        set.push_str(plain);
        set.push('\\');
        set.push(match special.as_bytes().first() {
            Some(b'\n') => 'n',
            Some(b'"') => '"',
            _ => '\\',
        });
        rest = special.get(1..).unwrap_or_default();
    }
    set.push_str(rest);
    set.push('"');
}

/// The exposition with control characters of labels' values written out, as `\\u{1b}`: its line
/// feeds are its own. Prometheus takes a NUL for the end of what it reads
/// (<https://github.com/prometheus/prometheus/blob/main/model/textparse/promlex.l>).
pub fn without_controls(exposition: String) -> String {
    let is_control = |c: char| c.is_ascii_control() && c != '\n';
    let is_byte = |b: u8| b.is_ascii_control() && b != b'\n';
    if !exposition.bytes().any(is_byte) {
        return exposition;
    }
    let mut out = String::with_capacity(exposition.len() + 64);
    for c in exposition.chars() {
        match is_control(c) {
            // Writing to a String cannot fail.
            true => drop(write!(out, r"\\u{{{:x}}}", u32::from(c))),
            false => out.push(c),
        }
    }
    out
}

/// The pairs of a label set that [`push_pair`] made, values unescaped.
pub fn pairs(set: &str) -> Pairs<'_> {
    Pairs { rest: set }
}

/// See [`pairs`].
#[derive(Clone, Debug)]
pub struct Pairs<'s> {
    rest: &'s str,
}

impl<'s> Iterator for Pairs<'s> {
    type Item = (&'s str, String);

    fn next(&mut self) -> Option<(&'s str, String)> {
        let (name, mut rest) = self.rest.split_once("=\"")?;
        let mut value = String::new();
        loop {
            let at = rest.find(['"', '\\'])?;
            let (before, special) = rest.split_at_checked(at)?;
            value.push_str(before);
            if let Some(after) = special.strip_prefix('"') {
                self.rest = after.strip_prefix(',').unwrap_or(after);
                return Some((name, value));
            }
            let mut escaped = special.get(1..)?.chars();
            value.push(match escaped.next()? {
                'n' => '\n',
                c => c,
            });
            rest = escaped.as_str();
        }
    }
}

/// Appends `value` x 10^-`places` as a plain decimal without trailing zeros, exactly.
pub fn push_fixed(out: &mut String, value: i128, places: usize) {
    if value < 0 {
        out.push('-');
    }
    let scale = 10_u128.pow(places as u32);
    let (whole, rest) = (value.unsigned_abs() / scale, value.unsigned_abs() % scale);
    // Writing to a String cannot fail.
    let _ = write!(out, "{whole}");
    if rest > 0 {
        let _ = write!(out, ".{rest:0places$}");
        out.truncate(out.trim_end_matches('0').len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controls_are_written_out() {
        let mut set = String::new();
        push_pair(&mut set, "model", "a\0b\u{1b}\r\nc\u{7f}é");
        let text = without_controls(format!("x{{{set}}} 1\n"));
        let want = r#"x{model="a\\u{0}b\\u{1b}\\u{d}\nc\\u{7f}é"} 1"#;
        assert_eq!(text, format!("{want}\n"));
    }

    #[test]
    fn pairs_round_trip() {
        let given = [("a", "x"), ("b", "q\"\\\n,c=\"z"), ("c", ""), ("d", "ü")];
        let mut set = String::new();
        for (name, value) in given {
            push_pair(&mut set, name, value);
        }
        let read: Vec<(&str, String)> = pairs(&set).collect();
        let wanted: Vec<(&str, String)> = given.map(|(n, v)| (n, v.to_owned())).to_vec();
        assert_eq!(read, wanted);
        assert_eq!(pairs("").count(), 0);
        assert_eq!(pairs(r#"a="x"#).count(), 0);
    }

    #[test]
    fn fixed_numbers() {
        for (value, places, text) in [
            (0, 12, "0"),
            (1, 12, "0.000000000001"),
            (1_500, 3, "1.5"),
            (-20, 1, "-2"),
            (1_200_000, 0, "1200000"),
            (i128::MAX, 12, "170141183460469231731687303.715884105727"),
        ] {
            let mut out = String::new();
            push_fixed(&mut out, value, places);
            assert_eq!(out, text);
        }
    }
}
