//! Lines of a stream, one after the other, in bounded memory.

use std::io::{self, BufRead, Read};

/// An event has at most 64 KiB, those of a connection 256 KiB together; written into a string of a
/// log line they may double, and the fields beside them are a few KiB.
const LINE_BYTES_MAX: u64 = 1024 * 1024;

/// What some editors put before a text; no part of it (<https://www.unicode.org/faq/utf_bom.html>).
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The lines of a stream, and how far they have been read.
pub struct Lines<R> {
    input: R,
    line: Vec<u8>,
    number: u64,
    n_bytes: u64,
    /// Whether a line came without its end: the last, of a log that may be written still. What is
    /// written to it meanwhile is no line of its own.
    has_ended: bool,
}

/// What came next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<'a> {
    /// A line, without its end.
    Line(&'a [u8]),
    /// A line that is longer than any of ours; it was passed over.
    TooLong,
    /// There are no more.
    End,
}

impl<R: BufRead> Lines<R> {
    /// The lines of that stream.
    pub fn new(input: R) -> Lines<R> {
        Lines {
            input,
            line: Vec::new(),
            number: 0,
            n_bytes: 0,
            has_ended: false,
        }
    }

    /// The number of the line that came last, from 1 on.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Bytes read so far.
    pub fn n_bytes(&self) -> u64 {
        self.n_bytes
    }

    /// Reads the next line that is not empty.
    pub fn read_next(&mut self) -> io::Result<Next<'_>> {
        loop {
            self.line.clear();
            let n_bytes = match self.has_ended {
                true => 0,
                false => self.read_some()?,
            };
            if n_bytes == 0 {
                return Ok(Next::End);
            }
            self.number += 1;
            self.has_ended = self.line.last() != Some(&b'\n') && n_bytes < LINE_BYTES_MAX;
            if n_bytes == LINE_BYTES_MAX && self.line.last() != Some(&b'\n') {
                while self.line.last() != Some(&b'\n') {
                    self.line.clear();
                    if self.read_some()? == 0 {
                        break;
                    }
                }
                return Ok(Next::TooLong);
            }
            if !self.text().is_empty() {
                break;
            }
        }
        Ok(Next::Line(self.text()))
    }

    /// The line without what is round it.
    fn text(&self) -> &[u8] {
        let marked = self.line.strip_prefix(BYTE_ORDER_MARK);
        let line = marked.filter(|_| self.number == 1);
        line.unwrap_or(&self.line).trim_ascii()
    }

    fn read_some(&mut self) -> io::Result<u64> {
        let mut bounded = Read::take(&mut self.input, LINE_BYTES_MAX);
        let n_bytes = bounded.read_until(b'\n', &mut self.line)? as u64;
        self.n_bytes += n_bytes;
        Ok(n_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_passed_over_and_empty_ones_counted() {
        let long = "x".repeat(3 * LINE_BYTES_MAX as usize);
        let text = format!("a\n\n{long}\r\n b\r\nc");
        let mut lines = Lines::new(text.as_bytes());
        let mut seen = Vec::new();
        loop {
            let next = match lines.read_next().unwrap() {
                Next::Line(line) => String::from_utf8(line.to_vec()).unwrap(),
                Next::TooLong => "too long".to_owned(),
                Next::End => break,
            };
            seen.push((lines.number(), next));
        }
        let seen: Vec<_> = seen.iter().map(|(n, line)| (*n, line.as_str())).collect();
        assert_eq!(seen, [(1, "a"), (3, "too long"), (4, "b"), (5, "c")]);
        assert_eq!(lines.n_bytes(), text.len() as u64);
    }

    #[test]
    fn a_mark_before_the_first_line_is_none_of_it() {
        let text = b"\xef\xbb\xbfa\n\xef\xbb\xbfb\n";
        let mut lines = Lines::new(text.as_slice());
        assert_eq!(lines.read_next().unwrap(), Next::Line(b"a"));
        assert_eq!(lines.read_next().unwrap(), Next::Line(b"\xef\xbb\xbfb"));
    }

    #[test]
    fn what_is_written_meanwhile_is_no_line() {
        // A reader that has nothing more for now, and later has.
        struct Log(Vec<&'static [u8]>);
        impl Read for Log {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                let part = if self.0.is_empty() {
                    &[]
                } else {
                    self.0.remove(0)
                };
                buffer[..part.len()].copy_from_slice(part);
                Ok(part.len())
            }
        }
        let log = Log(vec![b"a\n{\"half", b"", b"the rest\"}\n"]);
        let mut lines = Lines::new(io::BufReader::new(log));
        assert_eq!(lines.read_next().unwrap(), Next::Line(b"a"));
        assert_eq!(lines.read_next().unwrap(), Next::Line(b"{\"half"));
        assert_eq!(lines.read_next().unwrap(), Next::End);
    }
}
