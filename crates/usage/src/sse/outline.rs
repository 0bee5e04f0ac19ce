//! The outline of a stream's content event: what every further such event has in common with it.
//!
//! Streams repeat one event hundreds of times with nothing changed but the text. An outline is
//! learnt from an event that was scanned whole and brought nothing but content: its bytes, with
//! gaps where strings and numbers stood that mean nothing to the dialect. Bytes that fit the
//! outline would be scanned to the same end, so they are passed over; only the length of their
//! text is counted. That holds as long as no other event is scanned, which may say otherwise what
//! both say. No allocation, no search: a comparison.

use crate::block::{BLOCK_BYTES, is_same, quotes_backslashes_and_controls};
use crate::json::{Passed, Span};
use crate::relayed::TextKind;

/// The longest event that is learnt, in bytes. Content events have 150 to 600.
const OUTLINE_BYTES_MAX: usize = 1024;

/// The most gaps of an outline; content events have one to five.
const GAPS_MAX: usize = 12;

/// A stretch of the learnt event in which other events may differ.
#[derive(Clone, Copy, Debug)]
struct Gap {
    /// What stands there.
    what: Passed,
    /// Where it begins in the event, behind its quote.
    start: usize,
    /// Where it ends, before its quote.
    end: usize,
    /// Whether an event has differed there. Text always may; names and numbers rarely do, and a
    /// stretch that never does is compared with less work than looked through.
    varies: bool,
}

/// An event with gaps.
#[derive(Debug)]
pub(super) struct Outline {
    /// The event that was learnt; empty for none.
    event: Vec<u8>,
    gaps: Vec<Gap>,
    /// Those of the gaps that vary.
    varying: Vec<Gap>,
    kind: TextKind,
}

impl Default for Outline {
    fn default() -> Outline {
        Outline {
            event: Vec::new(),
            gaps: Vec::new(),
            varying: Vec::new(),
            kind: TextKind::Answer,
        }
    }
}

/// Events, one behind the other, that fit the outline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) n_bytes: usize,
    pub(super) n_text_bytes: usize,
    /// How many of them brought text.
    pub(super) n_pieces: u64,
}

/// How much of the input fits the outline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fit {
    n_bytes: usize,
    n_text_bytes: usize,
}

impl Outline {
    /// Learns an event; `payload` is where its only data line's value begins, `gaps` are offsets
    /// from there, `kind` is what its text is. What cannot be learnt leaves the outline as it was.
    ///
    /// Text of another kind was empty in that event, and an empty text is no gap, so that the
    /// kind holds for all that fits.
    pub(super) fn learn(
        &mut self,
        event: &[u8],
        payload: usize,
        gaps: &[(Passed, Span)],
        kind: TextKind,
    ) {
        if event.len() > OUTLINE_BYTES_MAX || gaps.len() > GAPS_MAX {
            return;
        }
        self.forget();
        self.kind = kind;
        let is_empty = |gap: Passed, span: &Span| gap == Passed::Text && span.end <= span.start + 2;
        for (what, span) in gaps.iter().filter(|(what, span)| !is_empty(*what, span)) {
            let n_quote = usize::from(*what != Passed::Number);
            let gap = Gap {
                what: *what,
                start: payload + index(span.start) + n_quote,
                end: payload + index(span.end) - n_quote,
                varies: *what == Passed::Text,
            };
            let from = self.gaps.last().map_or(0, |before| before.end);
            if from > gap.start || gap.start > gap.end || gap.end > event.len() {
                return self.forget();
            }
            self.gaps.push(gap);
        }
        self.event.extend_from_slice(event);
        self.note_varying();
    }

    /// From here on, nothing fits until an event is learnt.
    pub(super) fn forget(&mut self) {
        self.event.clear();
        self.gaps.clear();
        self.varying.clear();
    }

    /// What the text of a fitting event is.
    pub(super) fn kind(&self) -> TextKind {
        self.kind
    }

    /// The events of this outline with which the bytes begin; `None` where they begin otherwise.
    pub(super) fn run(&mut self, bytes: &[u8]) -> Option<Run> {
        let mut run = Run::default();
        let mut rest = bytes;
        while let Some(fit) = self.fit(rest) {
            run.n_bytes += fit.n_bytes;
            run.n_text_bytes += fit.n_text_bytes;
            run.n_pieces += u64::from(fit.n_text_bytes > 0);
            rest = rest.get(fit.n_bytes..)?;
        }
        (run.n_bytes > 0).then_some(run)
    }

    /// Whether the bytes begin with an event of this outline.
    fn fit(&mut self, bytes: &[u8]) -> Option<Fit> {
        if self.event.is_empty() {
            return None;
        }
        let fit = self.fit_but_for(&self.varying, bytes);
        if fit.is_some() || self.varying.len() == self.gaps.len() {
            return fit;
        }
        let fit = self.fit_but_for(&self.gaps, bytes)?;
        self.note_differences(bytes);
        Some(fit)
    }

    /// Whether the bytes begin with the learnt event, whatever stands in those gaps.
    fn fit_but_for(&self, gaps: &[Gap], bytes: &[u8]) -> Option<Fit> {
        let mut n_text_bytes = 0;
        let mut rest = bytes;
        let mut from = 0;
        for gap in gaps {
            rest = after(rest, self.event.get(from..gap.start)?)?;
            let n_gap = length(gap.what, rest)?;
            if gap.what == Passed::Text {
                n_text_bytes += n_gap;
            }
            rest = rest.get(n_gap..)?;
            from = gap.end;
        }
        rest = after(rest, self.event.get(from..)?)?;
        Some(Fit {
            n_bytes: bytes.len() - rest.len(),
            n_text_bytes,
        })
    }

    /// Marks the gaps in which an event that fits differs from the learnt one.
    fn note_differences(&mut self, bytes: &[u8]) {
        let (mut rest, mut from) = (bytes, 0);
        for gap in &mut self.gaps {
            rest = rest.get(gap.start - from..).unwrap_or_default();
            let n_gap = length(gap.what, rest).unwrap_or(0);
            gap.varies |= rest.get(..n_gap) != self.event.get(gap.start..gap.end);
            rest = rest.get(n_gap..).unwrap_or_default();
            from = gap.end;
        }
        self.note_varying();
    }

    fn note_varying(&mut self) {
        self.varying.clear();
        let varying = self.gaps.iter().filter(|gap| gap.varies);
        self.varying.extend(varying);
    }
}

/// How long what stands at the beginning of these bytes is.
fn length(what: Passed, bytes: &[u8]) -> Option<usize> {
    match what {
        Passed::Number => number_length(bytes),
        Passed::String | Passed::Text => string_length(bytes),
    }
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX / 4)
}

/// What follows `wanted` in `bytes`, if they begin with it.
fn after<'a>(bytes: &'a [u8], wanted: &[u8]) -> Option<&'a [u8]> {
    let (head, rest) = bytes.split_at_checked(wanted.len())?;
    is_same(head, wanted).then_some(rest)
}

/// Bytes before the quote that ends a string; `None` where it is cut or no JSON string.
fn string_length(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += special(bytes.get(at..)?)?;
        match bytes.get(at) {
            Some(b'"') => return Some(at),
            Some(b'\\') if bytes.get(at + 1).is_some_and(|b| *b >= 0x20) => at += 2,
            _ => return None,
        }
    }
}

/// The place of the first byte that is not plain text of a JSON string.
fn special(bytes: &[u8]) -> Option<usize> {
    let (blocks, rest) = bytes.as_chunks();
    let mut n_before = 0;
    for block in blocks {
        let mask = quotes_backslashes_and_controls(block);
        if mask != 0 {
            return Some(n_before + mask.trailing_zeros() as usize);
        }
        n_before += BLOCK_BYTES;
    }
    let is_special = |b: &u8| matches!(b, b'"' | b'\\') || *b < 0x20;
    rest.iter().position(is_special).map(|at| n_before + at)
}

fn number_length(bytes: &[u8]) -> Option<usize> {
    let is_part = |b: &u8| matches!(b, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
    let length = bytes.iter().position(|b| !is_part(b))?;
    matches!(bytes.first(), Some(b'0'..=b'9' | b'-')).then_some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learnt() -> Outline {
        let mut outline = Outline::default();
        let event = b"data: {\"i\":1,\"c\":\"hi\"}\n\n";
        let number = Span { start: 5, end: 6 };
        let text = Span { start: 11, end: 15 };
        let gaps = [(Passed::Number, number), (Passed::Text, text)];
        outline.learn(event, 6, &gaps, TextKind::Answer);
        outline
    }

    #[test]
    fn only_the_gaps_may_differ() {
        let mut outline = learnt();
        for (bytes, fit) in [
            ("data: {\"i\":1,\"c\":\"hi\"}\n\n", Some((24, 2))),
            ("data: {\"i\":-12.5,\"c\":\"\"}\n\nmore", Some((26, 0))),
            ("data: {\"i\":1,\"c\":\"\\\"\\\\x\"}\n\n", Some((27, 5))),
            ("data: {\"i\":1,\"c\":\"hi\"}\n", None),
            ("data: {\"i\":x,\"c\":\"hi\"}\n\n", None),
            ("data: {\"i\":1,\"d\":\"hi\"}\n\n", None),
            ("data: {\"i\":1,\"c\":\"h\ni\"}\n\n", None),
            ("data: {\"i\":1,\"c\":null}\n\n", None),
            ("", None),
        ] {
            let expected = fit.map(|(n_bytes, n_text_bytes)| Fit {
                n_bytes,
                n_text_bytes,
            });
            assert_eq!(outline.fit(bytes.as_bytes()), expected, "{bytes:?}");
        }
    }

    #[test]
    fn what_cannot_be_learnt_fits_nothing() {
        let mut outline = Outline::default();
        assert_eq!(outline.fit(b"data"), None);
        outline.learn(&[b'x'; OUTLINE_BYTES_MAX + 1], 0, &[], TextKind::Answer);
        assert_eq!(outline.fit(&[b'x'; OUTLINE_BYTES_MAX + 1]), None);
        let gap = (Passed::Text, Span { start: 7, end: 10 });
        outline.learn(b"data", 3, &[gap], TextKind::Answer);
        assert_eq!(outline.fit(b"data"), None);
    }
}
