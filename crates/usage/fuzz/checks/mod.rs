//! What must hold for any bytes: shared by the fuzz targets and by the tests on stable.
//!
//! Each check takes one input: its first byte is the size of the chunks, the second chooses among
//! what there is to choose, the rest is the body. A check says more than "no panic": it compares
//! chunks with the whole, and both with a slow reading or with another form of the same content.

// A fuzz target runs one check of several.
#![allow(dead_code)]

pub mod cutter;
pub mod decode;
pub mod eventstream;
pub mod form;
pub mod frames;
pub mod json;
pub mod live;
pub mod read;
pub mod scan;
pub mod splice;
pub mod sse;

/// An input taken apart.
struct Input<'a> {
    choice: u8,
    body: &'a [u8],
    chunk_bytes: usize,
}

impl<'a> Input<'a> {
    fn new(input: &'a [u8]) -> Option<Input<'a>> {
        let [size, choice, body @ ..] = input else {
            return None;
        };
        Some(Input {
            choice: *choice,
            body,
            chunk_bytes: usize::from(*size).max(1),
        })
    }

    fn chunks(&self) -> impl Iterator<Item = &'a [u8]> {
        self.body.chunks(self.chunk_bytes)
    }
}
