//! Patterns of hosts and paths.
//!
//! A path pattern is a list of segments: a literal, `*` for any one, `{model}`, `{model}:verb`,
//! `{location}` and `{response}` which are captured, and a leading `**` for any number of them.
//! Empty segments of the path are ignored, its query is never looked at.

/// What a path named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Captures<'a> {
    pub(super) model: Option<&'a str>,
    pub(super) location: Option<&'a str>,
    pub(super) response_id: Option<&'a str>,
}

/// The host without its port and in lower case.
pub(super) fn bare_host(host: &str) -> String {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    name.trim_end_matches('.').to_ascii_lowercase()
}

/// Whether a host is meant by a pattern: itself, or with each `*` for any non-empty part.
pub(super) fn match_host(pattern: &str, host: &str) -> bool {
    let Some((head, tail)) = pattern.split_once('*') else {
        return pattern == host;
    };
    let Some(rest) = host.strip_prefix(head) else {
        return false;
    };
    rest.char_indices()
        .skip(1)
        .any(|(at, _)| rest.get(at..).is_some_and(|rest| match_host(tail, rest)))
        || (tail.is_empty() && !rest.is_empty())
}

/// The captures of a path that has that pattern.
pub(super) fn match_path<'a>(pattern: &str, path: &'a str) -> Option<Captures<'a>> {
    let path = path.split(['?', '#']).next().unwrap_or(path);
    let segments = path.split('/').filter(|s| !s.is_empty());
    let Some(fixed) = pattern.strip_prefix("**/") else {
        return match_segments(pattern, segments);
    };
    let n_skipped = segments
        .clone()
        .count()
        .checked_sub(fixed.split('/').count())?;
    match_segments(fixed, segments.skip(n_skipped))
}

fn match_segments<'a>(
    pattern: &str,
    mut segments: impl Iterator<Item = &'a str>,
) -> Option<Captures<'a>> {
    let mut captures = Captures::default();
    for wanted in pattern.split('/').filter(|s| !s.is_empty()) {
        let segment = segments.next()?;
        match wanted.strip_prefix("{model}") {
            Some(verb) => captures.model = Some(without_verb(segment, verb)?),
            None if wanted == "{location}" => captures.location = Some(segment),
            None if wanted == "{response}" => captures.response_id = Some(segment),
            None if wanted == "*" || wanted == segment => {}
            None => return None,
        }
    }
    segments.next().is_none().then_some(captures)
}

/// The segment before its verb, whose colon some clients escape.
fn without_verb<'a>(segment: &'a str, verb: &str) -> Option<&'a str> {
    segment.strip_suffix(verb).or_else(|| {
        let escaped = segment.strip_suffix(verb.strip_prefix(':')?)?;
        ["%3A", "%3a"]
            .into_iter()
            .find_map(|colon| escaped.strip_suffix(colon))
    })
}

/// The first value of a key in a path's query, escapes as written; `None` where it is empty.
pub(super) fn query_value<'a>(path: &'a str, key: &str) -> Option<&'a str> {
    let query = path.split('#').next()?.split_once('?')?.1;
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let mut values = pairs.filter(|(name, _)| *name == key).map(|(_, v)| v);
    values.next().filter(|value| !value.is_empty())
}

/// The text with its percent escapes undone; what is no escape or no UTF-8 stays as it is.
pub(super) fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let escaped = (byte == b'%').then(|| rest.hex_ahead()).flatten();
        match escaped {
            Some(value) => {
                bytes.push(value);
                rest.nth(1);
            }
            None => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

/// Two hexadecimal digits ahead of a byte iterator.
trait HexAhead {
    fn hex_ahead(&self) -> Option<u8>;
}

impl HexAhead for std::str::Bytes<'_> {
    fn hex_ahead(&self) -> Option<u8> {
        let mut ahead = self.clone();
        let high = char::from(ahead.next()?).to_digit(16)?;
        let low = char::from(ahead.next()?).to_digit(16)?;
        u8::try_from(high << 4 | low).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_match_whole() {
        for (pattern, host, is_match) in [
            ("api.openai.com", "api.openai.com", true),
            ("api.openai.com", "xapi.openai.com", false),
            (
                "*-aiplatform.googleapis.com",
                "us-east5-aiplatform.googleapis.com",
                true,
            ),
            (
                "*-aiplatform.googleapis.com",
                "-aiplatform.googleapis.com",
                false,
            ),
            ("*.openai.azure.com", "a.b.openai.azure.com", true),
            ("*.x.*.y", "vpce-1.x.us-east-1.y", true),
            ("*.x.*.y", "vpce-1.x..y", false),
        ] {
            assert_eq!(match_host(pattern, host), is_match, "{pattern} {host}");
        }
        assert_eq!(bare_host("LocalHost:8080"), "localhost");
    }

    #[test]
    fn paths_match_whole_and_capture() {
        let model = |m| {
            Some(Captures {
                model: Some(m),
                ..Captures::default()
            })
        };
        for (pattern, path, captures) in [
            ("/v1/x", "/v1/x", Some(Captures::default())),
            ("/v1/x", "//v1/x/?a=/y", Some(Captures::default())),
            ("/v1/x", "/v1/x/y", None),
            ("/v1/*/x", "/v1/x", None),
            ("**/x", "/x", Some(Captures::default())),
            ("**/x", "/a/b/x", Some(Captures::default())),
            ("**/x", "/a/b/y", None),
            ("/m/{model}:go", "/m/a%3A0:go", model("a%3A0")),
            ("/m/{model}:go", "/m/a:stop", None),
            ("/m/{model}:go", "/m/a%3Ago", model("a")),
            ("/m/{model}:go", "/m/a%3ago", model("a")),
            ("/m/{model}:go", "/m/ago", None),
            ("/m/{model}/go", "/m/a/go", model("a")),
        ] {
            assert_eq!(match_path(pattern, path), captures, "{pattern} {path}");
        }
    }

    #[test]
    fn queries_are_read_by_key() {
        for (path, value) in [
            ("/r?model=a", Some("a")),
            ("/r?x=1&model=a%2Fb&model=c#model=d", Some("a%2Fb")),
            ("/r?amodel=a", None),
            ("/r?model=", None),
            ("/r?model", None),
            ("/model=a", None),
        ] {
            assert_eq!(query_value(path, "model"), value, "{path}");
        }
    }

    #[test]
    fn percent_escapes_are_undone() {
        for (text, plain) in [
            ("a%3A0", "a:0"),
            ("a%2fb%", "a/b%"),
            ("%zz%4", "%zz%4"),
            ("%ff", "%ff"),
        ] {
            assert_eq!(percent_decoded(text), plain);
        }
    }
}
