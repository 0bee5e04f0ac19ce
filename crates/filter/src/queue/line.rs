//! Events that wait, one behind the other in blocks of memory.
//!
//! A busy worker has thousands of them, and as many allocations would cost each call more than its
//! event is worth. One buffer that grows would be moved whole at each growth: a VM never gives memory
//! back, so that all the buffers it ever was would be the VM's size from then on.

use std::collections::VecDeque;

/// Bytes of a block: some ninety events.
pub const BLOCK_BYTES: usize = 64 * 1024;

/// Events as text, in the order in which they came. One may lie across blocks.
#[derive(Debug, Default)]
pub struct Line {
    /// Each of [`BLOCK_BYTES`], and freed as soon as nothing in it waits.
    blocks: VecDeque<Vec<u8>>,
    /// The bytes of each event.
    lengths: VecDeque<usize>,
    /// Where in the first block the first event begins.
    start: usize,
    n_bytes: usize,
}

impl Line {
    /// Bytes of all events.
    pub fn n_bytes(&self) -> usize {
        self.n_bytes
    }

    /// How many events there are.
    pub fn n_events(&self) -> usize {
        self.lengths.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    /// Adds an event behind all others.
    pub fn push(&mut self, event: &[u8]) {
        self.lengths.push_back(event.len());
        self.n_bytes += event.len();
        let mut rest = event;
        while !rest.is_empty() {
            let block = match self.blocks.back_mut() {
                Some(block) if block.len() < BLOCK_BYTES => block,
                _ => {
                    self.blocks.push_back(Vec::with_capacity(BLOCK_BYTES));
                    continue;
                }
            };
            let room = BLOCK_BYTES - block.len();
            let (part, after) = rest.split_at_checked(room).unwrap_or((rest, &[]));
            block.extend_from_slice(part);
            rest = after;
        }
    }

    /// How many events, from the first, one batch may have, one at least where there is one; and their
    /// bytes.
    pub fn first(&self, n_events_max: usize, n_bytes_max: usize) -> (usize, usize) {
        let (mut n_events, mut n_bytes) = (0, 0);
        for length in &self.lengths {
            let is_full = n_bytes + length > n_bytes_max || n_events >= n_events_max;
            if is_full && n_events > 0 {
                break;
            }
            n_events += 1;
            n_bytes += length;
        }
        (n_events, n_bytes)
    }

    /// Takes the first event out; its bytes. There may be none.
    pub fn take_first(&mut self, to: &mut Vec<u8>) -> usize {
        self.leave_first(|part| to.extend_from_slice(part))
            .unwrap_or(0)
    }

    /// Drops the first event; whether there was one.
    pub fn drop_first(&mut self) -> bool {
        self.leave_first(|_| {}).is_some()
    }

    /// Shows the first event, part by part, and frees the blocks that nothing waits in any more.
    fn leave_first(&mut self, mut show: impl FnMut(&[u8])) -> Option<usize> {
        let length = self.lengths.pop_front()?;
        self.n_bytes -= length;
        let mut left = length;
        while left > 0 {
            let block = self.blocks.front()?;
            let end = block.len().min(self.start + left);
            let part = block.get(self.start..end)?;
            show(part);
            left -= part.len();
            self.start = end;
            if self.start == BLOCK_BYTES {
                self.next_block();
            }
        }
        if self.lengths.is_empty() {
            self.next_block();
        }
        Some(length)
    }

    fn next_block(&mut self) {
        self.blocks.pop_front();
        self.start = 0;
    }

    /// Bytes of memory that the events take.
    #[cfg(test)]
    pub fn capacity(&self) -> usize {
        self.blocks.iter().map(Vec::capacity).sum()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn events_come_out_as_they_went_in(
            steps in proptest::collection::vec((0_usize..150_000, any::<u8>()), 1..60),
        ) {
            let (mut line, mut model) = (Line::default(), VecDeque::new());
            for (n, (size, seed)) in steps.into_iter().enumerate() {
                match seed % 4 {
                    0 => prop_assert_eq!(line.drop_first(), model.pop_front().is_some()),
                    1 if !model.is_empty() => {
                        let mut event = Vec::new();
                        let length = line.take_first(&mut event);
                        prop_assert_eq!(length, event.len());
                        prop_assert!(Some(event) == model.pop_front());
                    }
                    _ => {
                        let event: Vec<u8> = (0..size).map(|at| (at / 7 + n) as u8).collect();
                        line.push(&event);
                        model.push_back(event);
                    }
                }
                let n_bytes: usize = model.iter().map(Vec::len).sum();
                prop_assert_eq!((line.n_bytes(), line.n_events()), (n_bytes, model.len()));
                prop_assert!(line.capacity() <= n_bytes + 2 * BLOCK_BYTES);
            }
            while let Some(event) = model.pop_front() {
                let mut taken = Vec::new();
                line.take_first(&mut taken);
                prop_assert!(taken == event);
            }
            prop_assert_eq!(line.capacity(), 0);
        }
    }
}
