//! The trace that a request belongs to, from its W3C or b3 headers.

use crate::headers::Headers;

/// Trace and parent span, lower-case hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// 32 digits, or 16 where b3 sends a short one.
    pub trace_id: String,
    /// 16 digits.
    pub span_id: String,
}

/// The trace of a request: `traceparent` (<https://www.w3.org/TR/trace-context/>) before `b3`
/// before `x-b3-traceid` and `x-b3-spanid` (<https://github.com/openzipkin/b3-propagation>).
pub fn trace(headers: &Headers<'_>) -> Option<Trace> {
    let w3c = || traceparent(headers.text("traceparent")?);
    let single = || b3(headers.text("b3")?);
    let multi = || ids(headers.text("x-b3-traceid")?, headers.text("x-b3-spanid")?);
    w3c().or_else(single).or_else(multi)
}

/// `00-<trace>-<parent>-<flags>`; a later version may add parts.
fn traceparent(value: &str) -> Option<Trace> {
    let mut parts = value.trim().split('-');
    let version = parts.next()?;
    let (trace, parent, _flags) = (parts.next()?, parts.next()?, parts.next()?);
    if !is_id(version, 2) || version == "ff" || trace.len() != 32 {
        return None;
    }
    ids(trace, parent)
}

/// `<trace>-<span>-<sampled>-<parent>`, of which only the first two need be there.
fn b3(value: &str) -> Option<Trace> {
    let mut parts = value.trim().split('-');
    ids(parts.next()?, parts.next()?)
}

fn ids(trace_id: &str, span_id: &str) -> Option<Trace> {
    let known = is_id(trace_id, 32) || is_id(trace_id, 16);
    let zero = |id: &str| id.bytes().all(|b| b == b'0');
    if !known || !is_id(span_id, 16) || zero(trace_id) || zero(span_id) {
        return None;
    }
    Some(Trace {
        trace_id: trace_id.to_ascii_lowercase(),
        span_id: span_id.to_ascii_lowercase(),
    })
}

fn is_id(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    fn of(pairs: &[(&str, &str)]) -> Option<String> {
        let headers = pairs
            .iter()
            .map(|(n, v)| (n.as_bytes(), v.as_bytes()))
            .collect();
        trace(&headers).map(|t| format!("{}/{}", t.trace_id, t.span_id))
    }

    #[test]
    fn w3c_before_b3_and_nothing_but_ids() {
        let both = Some(format!("{TRACE}/{SPAN}"));
        let parent = format!("00-{TRACE}-{SPAN}-01");
        assert_eq!(of(&[("traceparent", &parent)]), both);
        assert_eq!(of(&[("b3", &format!("{TRACE}-{SPAN}-1"))]), both);
        assert_eq!(of(&[("x-b3-traceid", TRACE), ("x-b3-spanid", SPAN)]), both);
        let short = "463ac35c9f6413ad";
        assert_eq!(
            of(&[("traceparent", "junk"), ("b3", &format!("{short}-{SPAN}"))]),
            Some(format!("{short}/{SPAN}"))
        );
        for bad in [
            format!("00-{TRACE}-{SPAN}"),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("00-{}-{SPAN}-01", "0".repeat(32)),
            format!("00-{TRACE}-{}-01", "0".repeat(16)),
            format!("00-{}-{SPAN}-01", "g".repeat(32)),
            String::new(),
        ] {
            assert_eq!(of(&[("traceparent", &bad)]), None, "{bad}");
        }
        assert_eq!(of(&[("b3", "0")]), None);
    }
}
