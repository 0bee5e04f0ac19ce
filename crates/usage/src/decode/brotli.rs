//! `br` (RFC 7932).

use std::fmt;

use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};

use super::Volume;
use crate::scan::Trouble;

/// The buffer through which everything is decoded, on the stack.
const BUFFER_BYTES: usize = 4096;

/// The state of one body. The decoder allocates the window that the sender declared, at most
/// 16 MiB: "large windows" beyond RFC 7932 are refused.
pub(crate) struct Brotli {
    inner: BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>,
    is_complete: bool,
    volume: Volume,
}

impl fmt::Debug for Brotli {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Brotli")
            .field("is_complete", &self.is_complete)
            .field("volume", &self.volume)
            .finish_non_exhaustive()
    }
}

impl Brotli {
    pub(super) fn new() -> Brotli {
        let alloc = StandardAlloc::default;
        Brotli {
            inner: BrotliState::new_strict(alloc(), alloc(), alloc()),
            is_complete: false,
            volume: Volume::default(),
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.is_complete
    }

    pub(super) fn push(
        &mut self,
        chunk: &[u8],
        sink: &mut impl FnMut(&[u8]),
    ) -> Result<(), Trouble> {
        self.volume.n_encoded += chunk.len() as u64;
        let mut buffer = [0; BUFFER_BYTES];
        let (mut n_left, mut n_used, mut n_total) = (chunk.len(), 0, 0);
        while !self.is_complete {
            let (mut n_room, mut n_made) = (BUFFER_BYTES, 0);
            let result = BrotliDecompressStream(
                &mut n_left,
                &mut n_used,
                chunk,
                &mut n_room,
                &mut n_made,
                &mut buffer,
                &mut n_total,
                &mut self.inner,
            );
            if !self.volume.admits(n_made) {
                return Err(Trouble::BadEncoding);
            }
            sink(buffer.get(..n_made).unwrap_or_default());
            match result {
                BrotliResult::ResultSuccess => self.is_complete = true,
                BrotliResult::NeedsMoreInput => return Ok(()),
                BrotliResult::NeedsMoreOutput => {}
                BrotliResult::ResultFailure => return Err(Trouble::BadEncoding),
            }
        }
        Ok(())
    }
}
