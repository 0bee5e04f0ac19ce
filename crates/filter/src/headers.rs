//! A view of an HTTP header map as the proxy hands it over.

/// The headers of one message, in the order of the message; names in lower case, values raw.
///
/// Nothing is copied: names and values point into the buffer that was read.
#[derive(Clone, Debug, Default)]
pub struct Headers<'a> {
    pairs: Vec<(&'a [u8], &'a [u8])>,
}

impl<'a> Headers<'a> {
    /// The most headers that are looked at. Envoy's own limit is 100 by default, and operators
    /// raise it to some hundreds; beyond this a map is not a request's.
    pub const COUNT_MAX: usize = 16_384;

    /// Reads a serialised map: a 32-bit count, that many pairs of 32-bit sizes, then name and
    /// value of each, every one followed by a zero byte (proxy-wasm ABI 0.2.1, little endian,
    /// <https://github.com/proxy-wasm/spec/tree/main/abi-versions/v0.2.1>). A map that breaks off
    /// yields the headers before the break.
    pub fn parse(map: &'a [u8]) -> Headers<'a> {
        let mut reader = Reader { rest: map };
        let count = reader.size().unwrap_or(0).min(Headers::COUNT_MAX);
        let Some(mut sizes) = reader.take(count * 8).map(|rest| Reader { rest }) else {
            return Headers::default();
        };
        let mut pairs = Vec::with_capacity(count);
        while let (Some(name), Some(value)) = (sizes.size(), sizes.size()) {
            match (reader.text(name), reader.text(value)) {
                (Some(name), Some(value)) => pairs.push((name, value)),
                _ => break,
            }
        }
        Headers { pairs }
    }

    /// The raw value of the first header of that name.
    pub fn get(&self, name: &str) -> Option<&'a [u8]> {
        self.iter()
            .find(|(n, _)| *n == name.as_bytes())
            .map(|(_, value)| value)
    }

    /// The value of the first header of that name; `None` also where it is not UTF-8.
    pub fn text(&self, name: &str) -> Option<&'a str> {
        std::str::from_utf8(self.get(name)?).ok()
    }

    /// Whether there is a header of that name.
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Every header, name and raw value.
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + '_ {
        self.pairs.iter().copied()
    }
}

impl<'a> FromIterator<(&'a [u8], &'a [u8])> for Headers<'a> {
    fn from_iter<I: IntoIterator<Item = (&'a [u8], &'a [u8])>>(pairs: I) -> Headers<'a> {
        Headers {
            pairs: pairs.into_iter().collect(),
        }
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(n)?;
        self.rest = rest;
        Some(taken)
    }

    fn size(&mut self) -> Option<usize> {
        let bytes: [u8; 4] = self.take(4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    }

    fn text(&mut self, n: usize) -> Option<&'a [u8]> {
        let text = self.take(n)?;
        self.take(1)?;
        Some(text)
    }
}

/// Writes a map in the form that [`Headers::parse`] reads.
pub fn serialise(pairs: &[(&str, &str)]) -> Vec<u8> {
    let size = |text: &str| u32::try_from(text.len()).unwrap_or(0).to_le_bytes();
    let count = u32::try_from(pairs.len()).unwrap_or(0);
    let mut map = count.to_le_bytes().to_vec();
    for (name, value) in pairs {
        map.extend_from_slice(&size(name));
        map.extend_from_slice(&size(value));
    }
    for (name, value) in pairs {
        for text in [name, value] {
            map.extend_from_slice(text.as_bytes());
            map.push(0);
        }
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_written_map_reads_back() {
        let map = serialise(&[(":path", "/v1"), ("x-empty", ""), ("x-llm-team", "red")]);
        let headers = Headers::parse(&map);
        assert_eq!(headers.text(":path"), Some("/v1"));
        assert_eq!(headers.text("x-empty"), Some(""));
        assert_eq!(headers.text("x-llm-team"), Some("red"));
        assert_eq!(headers.get("x"), None);
        assert_eq!(headers.iter().count(), 3);
    }

    #[test]
    fn a_value_that_is_not_text_is_bytes() {
        let mut map = serialise(&[("x-odd", "?")]);
        let last = map.len() - 2;
        map[last] = 0xff;
        let headers = Headers::parse(&map);
        assert_eq!(headers.get("x-odd"), Some(&b"\xff"[..]));
        assert_eq!(headers.text("x-odd"), None);
    }

    #[test]
    fn a_cut_map_yields_what_came_before_the_cut() {
        let map = serialise(&[("a", "1"), ("b", "2")]);
        for cut in 0..map.len() {
            assert!(Headers::parse(&map[..cut]).iter().count() < 2);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_harmless(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            Headers::parse(&bytes);
        }
    }
}
