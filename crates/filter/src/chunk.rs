//! One chunk of a body, taken out of the host's buffer slice by slice.
//!
//! A chunk is what the proxy has read at a time: up to its buffer's limit, 1 MiB where Envoy is left
//! as it is. A VM's memory grows and never shrinks, so that a chunk taken whole, and its copy with
//! something cut out, would be the VM's size from then on. The buffer can be changed at its two
//! ends only: of a chunk in which something may change, each slice is therefore taken off the front,
//! and what becomes of it is put at the back; when all slices have gone round, they are in order.

/// The most of a chunk that is at hand at a time, bytes. Each slice costs two or three host calls, so
/// that what is usually read at a time should be one: a burst of five hundred events has some 100 KB.
pub const SLICE_BYTES_MAX: usize = 128 * 1024;

/// A buffer of the host's that holds one chunk.
pub trait Buffer {
    /// What the host says where it refuses.
    type Refused;

    /// A copy of at most so many bytes from there on.
    fn part(&self, from: usize, size_max: usize) -> Result<Vec<u8>, Self::Refused>;

    /// Puts these bytes in the place of all there is.
    fn replace(&self, bytes: &[u8]) -> Result<(), Self::Refused>;

    /// Takes so many bytes off the front.
    fn drop_front(&self, size: usize) -> Result<(), Self::Refused>;

    /// Puts these bytes at the back.
    fn append(&self, bytes: &[u8]) -> Result<(), Self::Refused>;
}

/// A chunk, as far as it has been read.
#[derive(Debug)]
pub struct Chunk<B> {
    buffer: B,
    size: usize,
    n_read: usize,
    /// Whether slices go round, and how many bytes have left the front.
    is_turned: bool,
    n_turned: usize,
}

impl<B: Buffer> Chunk<B> {
    /// A chunk of so many bytes, of which none was read.
    pub fn new(buffer: B, size: usize, may_change: bool) -> Chunk<B> {
        Chunk {
            buffer,
            size,
            n_read: 0,
            is_turned: may_change && size > SLICE_BYTES_MAX,
            n_turned: 0,
        }
    }

    /// The next slice; an empty one where the chunk is empty.
    pub fn take(&mut self) -> Result<Vec<u8>, B::Refused> {
        let size = (self.size - self.n_read).min(SLICE_BYTES_MAX);
        let from = if self.is_turned { 0 } else { self.n_read };
        self.n_read += size;
        match size {
            0 => Ok(Vec::new()),
            size => self.buffer.part(from, size),
        }
    }

    /// Whether the slice taken last is the last one.
    pub fn is_read(&self) -> bool {
        self.n_read == self.size
    }

    /// Lets the slice taken last go on: as it was, or changed.
    pub fn pass(&mut self, slice: &[u8], changed: Option<&[u8]>) -> Result<(), B::Refused> {
        if self.is_turned {
            self.buffer.drop_front(slice.len())?;
            self.n_turned += slice.len();
            return self.buffer.append(changed.unwrap_or(slice));
        }
        match changed {
            Some(bytes) => self.buffer.replace(bytes),
            None => Ok(()),
        }
    }

    /// Lets all the rest go on as it is, where the host has refused a slice: what has not gone round
    /// stands before what has, and would leave so. Nothing is left to be taken then.
    pub fn pass_rest(&mut self) -> Result<(), B::Refused> {
        self.n_read = self.size;
        while self.is_turned && self.n_turned < self.size {
            let size = (self.size - self.n_turned).min(SLICE_BYTES_MAX);
            let slice = self.buffer.part(0, size)?;
            self.pass(&slice, None)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// What Envoy's `Buffer::copyFrom` (`source/extensions/common/wasm/context.cc`) makes of a buffer.
    #[derive(Default)]
    struct Held {
        bytes: RefCell<Vec<u8>>,
        n_largest: RefCell<usize>,
        n_calls: RefCell<usize>,
        /// That call is refused.
        refused: Option<usize>,
    }

    impl Held {
        fn called(&self) -> Result<(), ()> {
            *self.n_calls.borrow_mut() += 1;
            match self.refused == Some(*self.n_calls.borrow()) {
                true => Err(()),
                false => Ok(()),
            }
        }
    }

    impl Buffer for &Held {
        type Refused = ();

        fn part(&self, from: usize, size_max: usize) -> Result<Vec<u8>, ()> {
            self.called()?;
            let bytes = self.bytes.borrow();
            let part = bytes[from..bytes.len().min(from + size_max)].to_vec();
            let n_largest = part.len().max(*self.n_largest.borrow());
            self.n_largest.replace(n_largest);
            Ok(part)
        }

        fn replace(&self, bytes: &[u8]) -> Result<(), ()> {
            self.called()?;
            self.bytes.replace(bytes.to_vec());
            Ok(())
        }

        fn drop_front(&self, size: usize) -> Result<(), ()> {
            self.called()?;
            self.bytes.borrow_mut().drain(..size);
            Ok(())
        }

        fn append(&self, bytes: &[u8]) -> Result<(), ()> {
            self.called()?;
            self.bytes.borrow_mut().extend_from_slice(bytes);
            Ok(())
        }
    }

    /// Bytes that differ wherever slices could be mistaken for each other.
    fn bytes(n_bytes: usize) -> Vec<u8> {
        (0..n_bytes).map(|n| (n / 251 + n) as u8).collect()
    }

    /// Passes a chunk through, leaving out what `keep` refuses.
    fn passed(n_bytes: usize, may_change: bool, keep: impl Fn(u8) -> bool) -> Held {
        let held = Held::default();
        held.bytes.replace(bytes(n_bytes));
        let mut chunk = Chunk::new(&held, n_bytes, may_change);
        let mut seen = Vec::new();
        loop {
            let slice = chunk.take().unwrap();
            seen.extend_from_slice(&slice);
            let kept: Vec<u8> = slice.iter().copied().filter(|byte| keep(*byte)).collect();
            let changed = (kept.len() < slice.len()).then_some(&kept[..]);
            chunk.pass(&slice, changed).unwrap();
            if chunk.is_read() {
                break;
            }
        }
        assert!(seen == bytes(n_bytes), "{n_bytes}");
        held
    }

    #[test]
    fn what_the_host_refuses_once_leaves_the_rest_in_order() {
        const SIZE: usize = 3 * SLICE_BYTES_MAX + 17;
        // Each slice is copied, taken off the front, and put at the back.
        for refused in 1..=12 {
            let held = Held {
                bytes: RefCell::new(bytes(SIZE)),
                refused: Some(refused),
                ..Held::default()
            };
            let mut chunk = Chunk::new(&held, SIZE, true);
            while !chunk.is_read() {
                let passed = chunk.take().and_then(|slice| chunk.pass(&slice, None));
                if passed.is_err() {
                    chunk.pass_rest().expect("once");
                }
            }
            let mut expected = bytes(SIZE);
            if refused % 3 == 0 {
                // It had left the front.
                let from = (refused / 3 - 1) * SLICE_BYTES_MAX;
                expected.drain(from..SIZE.min(from + SLICE_BYTES_MAX));
            }
            assert!(*held.bytes.borrow() == expected, "{refused}");
        }
    }

    const SIZES: [usize; 8] = [
        0,
        1,
        SLICE_BYTES_MAX - 1,
        SLICE_BYTES_MAX,
        SLICE_BYTES_MAX + 1,
        3 * SLICE_BYTES_MAX,
        3 * SLICE_BYTES_MAX + 17,
        1 << 20,
    ];

    #[test]
    fn a_chunk_of_any_size_passes_in_order() {
        for size in SIZES {
            for may_change in [false, true] {
                let held = passed(size, may_change, |_| true);
                assert!(*held.bytes.borrow() == bytes(size), "{size}");
            }
        }
    }

    #[test]
    fn what_is_left_out_of_any_slice_is_left_out_of_the_chunk() {
        for size in SIZES {
            for keep in [|byte| byte % 7 != 0, |byte| byte < 250, |_| false] {
                let held = passed(size, true, keep);
                let kept: Vec<u8> = bytes(size).into_iter().filter(|b| keep(*b)).collect();
                assert!(*held.bytes.borrow() == kept, "{size}");
            }
        }
    }

    #[test]
    fn no_more_than_a_slice_is_at_hand() {
        for may_change in [false, true] {
            let held = passed(1 << 20, may_change, |_| true);
            assert_eq!(*held.n_largest.borrow(), SLICE_BYTES_MAX);
        }
    }

    #[test]
    fn a_usual_chunk_costs_one_call_and_a_second_where_it_is_changed() {
        for (keeps, n_calls) in [(true, 1), (false, 2)] {
            let held = passed(SLICE_BYTES_MAX, true, |_| keeps);
            assert_eq!(*held.n_calls.borrow(), n_calls);
        }
    }
}
