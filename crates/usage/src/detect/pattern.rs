//! Patterns of hosts and paths.
//!
//! A path pattern is a list of segments: a literal, `*` for any one, `{model}`, `{model}:verb`,
//! `{location}` and `{response}` which are captured, and a leading `**` for any number of them.
//! Paths come as [`normal_path`] makes them; literals are compared without regard to case, since
//! some servers do. Empty segments are ignored, a query is never looked at.

use std::borrow::Cow;

/// What a path named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Captures<'a> {
    pub(super) model: Option<&'a str>,
    pub(super) location: Option<&'a str>,
    pub(super) response_id: Option<&'a str>,
}

/// The host without its port and its trailing dot, in lower case.
pub fn bare_host(host: &str) -> String {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    name.trim_end_matches('.').to_ascii_lowercase()
}

/// The path that servers take that one for, query and fragment left out: escapes of characters that
/// need none undone, `.` and `..` and empty segments resolved (RFC 3986, 6.2.2), and without what
/// RFC 3986, 3.3 calls a segment's parameters (`;…`), which many servers cut off. The target of an
/// absolute form (RFC 9112, 3.2.2) loses its authority.
///
/// What is sent on stays as it came. Only paths that do not look like this already are copied.
pub fn normal_path(path: &str) -> Cow<'_, str> {
    let bare = path.split(['?', '#']).next().unwrap_or(path);
    let bare = match bare.split_once("://") {
        Some((scheme, rest)) if !scheme.contains('/') => {
            rest.find('/').and_then(|at| rest.get(at..)).unwrap_or("/")
        }
        _ => bare,
    };
    let is_plain = !bare.contains(['%', ';']) && !bare.contains("//") && !bare.contains("/.");
    if is_plain {
        return Cow::Borrowed(bare);
    }
    let plain = with_plain_escapes(bare);
    let mut segments: Vec<&str> = Vec::new();
    for segment in plain.split('/') {
        match segment.split(';').next().unwrap_or_default() {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            segment => segments.push(segment),
        }
    }
    let mut normal = String::with_capacity(plain.len());
    for segment in &segments {
        normal.push('/');
        normal.push_str(segment);
    }
    if normal.is_empty() || plain.ends_with('/') {
        normal.push('/');
    }
    Cow::Owned(normal)
}

/// The path with escaped slashes as slashes; `None` where it has none.
pub(super) fn with_open_slashes(path: &str) -> Option<String> {
    let open = path.replace("%2F", "/").replace("%2f", "/");
    (open != path).then_some(open)
}

/// The text with those escapes undone that stand for what needs none (RFC 3986, 2.3).
fn with_plain_escapes(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        plain.push_str(before);
        let escaped = after.bytes().hex_ahead().map(char::from);
        let is_needless = |c: &char| c.is_ascii_alphanumeric() || "-._~".contains(*c);
        (plain, rest) = match escaped.filter(is_needless) {
            Some(c) => (
                plain + c.encode_utf8(&mut [0; 4]),
                after.get(2..).unwrap_or_default(),
            ),
            None => (plain + "%", after),
        };
    }
    plain + rest
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

/// The captures of a [`normal_path`] that has that pattern.
pub(super) fn match_path<'a>(pattern: &str, path: &'a str) -> Option<Captures<'a>> {
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
            None if wanted == "*" || wanted.eq_ignore_ascii_case(segment) => {}
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
        for (host, bare) in [
            ("LocalHost:8080", "localhost"),
            ("API.openai.com.:443", "api.openai.com"),
            ("[::1]:80", "[::1]"),
            ("[::1]", "[::1]"),
        ] {
            assert_eq!(bare_host(host), bare);
        }
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
            ("/v1/x", "/V1/X", Some(Captures::default())),
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
            let path = normal_path(path);
            assert_eq!(match_path(pattern, &path), captures, "{pattern} {path}");
        }
    }

    #[test]
    fn paths_are_taken_as_servers_take_them() {
        for (path, normal) in [
            ("/v1/chat/completions?a=/../b", "/v1/chat/completions"),
            ("/v1/chat/completion%73", "/v1/chat/completions"),
            ("/v1/%63%68at/completions#x", "/v1/chat/completions"),
            ("/v1/chat/completions;x=1", "/v1/chat/completions"),
            ("/v1;a=b/chat;c/completions/", "/v1/chat/completions/"),
            ("//v1///chat/completions", "/v1/chat/completions"),
            ("/v1/./chat/completions/.", "/v1/chat/completions"),
            ("/v1/x/../chat/completions", "/v1/chat/completions"),
            ("/v1/x/%2e%2E/chat/completions", "/v1/chat/completions"),
            ("/../../v1/messages", "/v1/messages"),
            ("http://h:1/v1/messages?x", "/v1/messages"),
            ("http://h", "/"),
            ("/proxy/http://h/v1/messages", "/proxy/http:/h/v1/messages"),
            ("/m/a%2Fb%3A0%25", "/m/a%2Fb%3A0%25"),
            ("/m/%zz%4", "/m/%zz%4"),
            ("/%", "/%"),
            ("/m/\u{e9}%C3%A9", "/m/\u{e9}%C3%A9"),
            ("", ""),
            ("/", "/"),
            ("/..", "/"),
        ] {
            assert_eq!(normal_path(path), normal, "{path}");
            assert_eq!(normal_path(normal), normal, "{path}");
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
