//! Writes wire types as JSON, for the side that writes one in the way of each call.
//!
//! The text is what `serde_json` would write, from the same derived `Serialize`. The filter runs
//! between other people's code on a proxy's core, so that what counts is how little code a call
//! runs through: text that needs no escape is copied whole, and a field's name is not looked at.

use std::fmt;

use serde::ser::{self, Impossible, Serialize};

/// A value that this writer does not write: wire types hold text, whole numbers, booleans, options,
/// lists, structures, and maps with text as keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a kind of value that no message on the wire has")]
pub struct Unwritable;

impl ser::Error for Unwritable {
    fn custom<T: fmt::Display>(_: T) -> Unwritable {
        Unwritable
    }
}

/// Appends `value` as JSON to `out`. After an error `out` ends in the middle of a value.
pub fn write(out: &mut Vec<u8>, value: &impl Serialize) -> Result<(), Unwritable> {
    value.serialize(Writer { out })
}

struct Writer<'a> {
    out: &'a mut Vec<u8>,
}

/// A list, a map or a structure of which some members are written.
struct Members<'a> {
    out: &'a mut Vec<u8>,
    is_first: bool,
    end: u8,
}

impl<'a> Writer<'a> {
    fn open(self, start: u8, end: u8) -> Members<'a> {
        self.out.push(start);
        Members {
            out: self.out,
            is_first: true,
            end,
        }
    }

    fn whole(self, n: u64) {
        let mut digits = [0; 20];
        let mut start = digits.len();
        let mut rest = n;
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
            start -= 1;
            if rest == 0 {
                break;
            }
        }
        self.out
            .extend_from_slice(digits.get(start..).unwrap_or_default());
    }

    fn text(self, text: &str) -> Result<(), Unwritable> {
        if !is_plain(text.as_bytes()) {
            return serde_json::to_writer(self.out, text).map_err(|_| Unwritable);
        }
        self.out.push(b'"');
        self.out.extend_from_slice(text.as_bytes());
        self.out.push(b'"');
        Ok(())
    }
}

/// Whether text stands in JSON as it is (RFC 8259, section 7).
fn is_plain(text: &[u8]) -> bool {
    let is_special = |byte: &u8| *byte < b' ' || *byte == b'"' || *byte == b'\\';
    let (blocks, rest) = text.as_chunks::<16>();
    // No early end within a block: such a loop becomes one comparison of vectors.
    let has_special = |block: &[u8; 16]| block.iter().fold(false, |has, b| has | is_special(b));
    !blocks.iter().any(has_special) && !rest.iter().any(is_special)
}

impl Members<'_> {
    fn next(&mut self) -> Writer<'_> {
        if !self.is_first {
            self.out.push(b',');
        }
        self.is_first = false;
        Writer { out: self.out }
    }

    fn close(self) {
        self.out.push(self.end);
    }
}

impl<'a> ser::Serializer for Writer<'a> {
    type Ok = ();
    type Error = Unwritable;
    type SerializeSeq = Members<'a>;
    type SerializeTuple = Impossible<(), Unwritable>;
    type SerializeTupleStruct = Impossible<(), Unwritable>;
    type SerializeTupleVariant = Impossible<(), Unwritable>;
    type SerializeMap = Members<'a>;
    type SerializeStruct = Members<'a>;
    type SerializeStructVariant = Impossible<(), Unwritable>;

    fn serialize_bool(self, is: bool) -> Result<(), Unwritable> {
        let word: &[u8] = if is { b"true" } else { b"false" };
        self.out.extend_from_slice(word);
        Ok(())
    }

    fn serialize_u8(self, n: u8) -> Result<(), Unwritable> {
        self.serialize_u64(n.into())
    }

    fn serialize_u16(self, n: u16) -> Result<(), Unwritable> {
        self.serialize_u64(n.into())
    }

    fn serialize_u32(self, n: u32) -> Result<(), Unwritable> {
        self.serialize_u64(n.into())
    }

    fn serialize_u64(self, n: u64) -> Result<(), Unwritable> {
        self.whole(n);
        Ok(())
    }

    fn serialize_i8(self, n: i8) -> Result<(), Unwritable> {
        self.serialize_i64(n.into())
    }

    fn serialize_i16(self, n: i16) -> Result<(), Unwritable> {
        self.serialize_i64(n.into())
    }

    fn serialize_i32(self, n: i32) -> Result<(), Unwritable> {
        self.serialize_i64(n.into())
    }

    fn serialize_i64(self, n: i64) -> Result<(), Unwritable> {
        if n < 0 {
            self.out.push(b'-');
        }
        self.whole(n.unsigned_abs());
        Ok(())
    }

    fn serialize_f32(self, _: f32) -> Result<(), Unwritable> {
        Err(Unwritable)
    }

    fn serialize_f64(self, _: f64) -> Result<(), Unwritable> {
        Err(Unwritable)
    }

    fn serialize_char(self, _: char) -> Result<(), Unwritable> {
        Err(Unwritable)
    }

    fn serialize_str(self, text: &str) -> Result<(), Unwritable> {
        self.text(text)
    }

    fn serialize_bytes(self, _: &[u8]) -> Result<(), Unwritable> {
        Err(Unwritable)
    }

    fn serialize_none(self) -> Result<(), Unwritable> {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Unwritable> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Unwritable> {
        self.out.extend_from_slice(b"null");
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Unwritable> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<(), Unwritable> {
        self.text(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Unwritable> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<(), Unwritable> {
        Err(Unwritable)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Members<'a>, Unwritable> {
        Ok(self.open(b'[', b']'))
    }

    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, Unwritable> {
        Err(Unwritable)
    }

    fn serialize_tuple_struct(
        self,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleStruct, Unwritable> {
        Err(Unwritable)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, Unwritable> {
        Err(Unwritable)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Members<'a>, Unwritable> {
        Ok(self.open(b'{', b'}'))
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Members<'a>, Unwritable> {
        Ok(self.open(b'{', b'}'))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, Unwritable> {
        Err(Unwritable)
    }
}

impl ser::SerializeSeq for Members<'_> {
    type Ok = ();
    type Error = Unwritable;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unwritable> {
        value.serialize(self.next())
    }

    fn end(self) -> Result<(), Unwritable> {
        self.close();
        Ok(())
    }
}

impl ser::SerializeMap for Members<'_> {
    type Ok = ();
    type Error = Unwritable;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Unwritable> {
        let start = self.out.len() + usize::from(!self.is_first);
        key.serialize(self.next())?;
        match self.out.get(start) {
            Some(b'"') => Ok(()),
            _ => Err(Unwritable),
        }
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unwritable> {
        self.out.push(b':');
        value.serialize(Writer { out: self.out })
    }

    fn end(self) -> Result<(), Unwritable> {
        self.close();
        Ok(())
    }
}

impl ser::SerializeStruct for Members<'_> {
    type Ok = ();
    type Error = Unwritable;

    /// The names of fields are identifiers and need no escape.
    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), Unwritable> {
        let out = self.next().out;
        out.push(b'"');
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\":");
        value.serialize(Writer { out })
    }

    fn end(self) -> Result<(), Unwritable> {
        self.close();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use tollmesh_usage::{Bucket, Usage};

    use super::*;
    use crate::event::Kind;
    use crate::{Event, ExtraUsage, Outcome, Source, Timestamp};

    fn written(value: &impl Serialize) -> Result<String, Unwritable> {
        let mut out = Vec::new();
        write(&mut out, value)?;
        Ok(String::from_utf8(out).expect("JSON is text"))
    }

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![
            Just(String::new()),
            "[ -~]{0,40}",
            "\\PC{0,20}",
            proptest::collection::vec(any::<char>(), 0..40).prop_map(|c| c.into_iter().collect()),
        ]
    }

    fn tags() -> impl Strategy<Value = BTreeMap<String, String>> {
        proptest::collection::btree_map(text(), text(), 0..4)
    }

    fn usage() -> impl Strategy<Value = Usage> {
        proptest::collection::vec(proptest::option::of(any::<u64>()), Bucket::ALL.len()).prop_map(
            |counts| {
                let mut usage = Usage::new();
                for (bucket, tokens) in Bucket::ALL.into_iter().zip(counts) {
                    usage.set(bucket, tokens);
                }
                usage
            },
        )
    }

    prop_compose! {
        fn event()(
            texts in proptest::collection::vec(text(), 8),
            (usage, other) in (usage(), usage()),
            (tags, context) in (tags(), tags()),
            (ms, n, small) in (any::<i64>(), any::<u64>(), any::<u32>()),
            is in any::<bool>(),
        ) -> Event {
            let some = |i: usize| Some(texts[i].clone()).filter(|text| is || text.len() > 5);
            Event {
                event_id: texts[0].clone(),
                kind: if is { Kind::Call } else { Kind::LateUsage },
                request_id: some(1),
                time: Timestamp::from_unix_ms(ms),
                duration_ms: n,
                ttft_ms: Some(n).filter(|_| is),
                provider: texts[2].clone(),
                model: some(3),
                stream: is,
                usage: usage.clone(),
                billed_usage: Some(other.clone()).filter(|_| is),
                extra_usage: vec![ExtraUsage { kind: texts[4].clone(), model: some(5), usage: other }],
                pricing_context: context,
                tool_calls: Some(small),
                outcome: if is { Outcome::Success } else { Outcome::Aborted },
                response_flags: n,
                attempts: small,
                tags,
                source: Source { namespace: some(6), pod: some(7), ..Source::default() },
                ..Event::default()
            }
        }
    }

    proptest! {
        #[test]
        fn events_are_written_as_serde_json_writes_them(event in event()) {
            prop_assert_eq!(written(&event).unwrap(), serde_json::to_string(&event).unwrap());
        }
    }

    #[test]
    fn every_byte_that_needs_an_escape_has_one_wherever_it_stands() {
        for special in (0..=0x20).chain([b'"', b'\\', 0x7f]) {
            for place in 0..40 {
                let mut bytes = vec![b'x'; 40];
                bytes[place] = special;
                let text = String::from_utf8(bytes).unwrap();
                assert_eq!(
                    written(&text).unwrap(),
                    serde_json::to_string(&text).unwrap()
                );
            }
        }
    }

    #[test]
    fn numbers_at_their_ends() {
        assert_eq!(written(&0_u64).unwrap(), "0");
        assert_eq!(written(&u64::MAX).unwrap(), u64::MAX.to_string());
        assert_eq!(written(&i64::MIN).unwrap(), i64::MIN.to_string());
        assert_eq!(written(&Some(10_u16)).unwrap(), "10");
    }

    #[test]
    fn what_no_message_has_is_an_error() {
        assert_eq!(written(&1.5), Err(Unwritable));
        assert_eq!(written(&(1, 2)), Err(Unwritable));
        assert_eq!(written(&BTreeMap::from([(1, "a")])), Err(Unwritable));
        assert_eq!(written(&[1_u8].as_slice()).unwrap(), "[1]");
    }
}
