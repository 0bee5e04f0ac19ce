//! The module's heap: small blocks wait on shelves of their size, all others are the system's.
//!
//! A call takes and gives back some fifty small blocks, and the next call takes the same again. The
//! system's allocator looks for the best place and joins neighbours each time; here a block is the
//! first of a list. Blocks that lie on a shelf stay there, so that the shelves together hold at most
//! what was in use at once of each size.
//!
//! A WebAssembly module without threads runs on one thread, which is why relaxed atomics, plain
//! memory there, are enough.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering::Relaxed};

/// Sizes on one shelf, bytes; also what all blocks on shelves are aligned to.
const STEP_BYTES: usize = 16;
/// The largest block on a shelf, bytes: what a call keeps of itself, its event and the usual body
/// are smaller.
const SHELVED_BYTES_MAX: usize = 2048;
/// What is taken from the system at a time to fill shelves, bytes.
const SLAB_BYTES: usize = 16 * 1024;

const N_SHELVES: usize = SHELVED_BYTES_MAX / STEP_BYTES;

/// A heap. There is one in a module.
pub struct Heap {
    /// The first free block of each size; each holds the address of the next.
    shelves: [AtomicPtr<u8>; N_SHELVES],
    /// What is left of the last slab.
    slab: AtomicPtr<u8>,
    n_slab_bytes: AtomicUsize,
}

#[cfg(target_arch = "wasm32")]
#[global_allocator]
static HEAP: Heap = Heap::new();

impl Heap {
    /// A heap without a block.
    pub const fn new() -> Heap {
        Heap {
            shelves: [const { AtomicPtr::new(null_mut()) }; N_SHELVES],
            slab: AtomicPtr::new(null_mut()),
            n_slab_bytes: AtomicUsize::new(0),
        }
    }

    /// The shelf for a block, and the size of all blocks on it; `None` where the system serves.
    fn shelf(&self, layout: Layout) -> Option<(&AtomicPtr<u8>, usize)> {
        if layout.align() > STEP_BYTES {
            return None;
        }
        let shelf = self
            .shelves
            .get(layout.size().wrapping_sub(1) / STEP_BYTES)?;
        Some((shelf, layout.size().next_multiple_of(STEP_BYTES)))
    }

    /// A block for a shelf that is empty.
    #[cold]
    fn cut(&self, n_bytes: usize) -> *mut u8 {
        let n_left = self.n_slab_bytes.load(Relaxed);
        let Some(n_left) = n_left.checked_sub(n_bytes) else {
            return self.cut_new(n_bytes);
        };
        let block = self.slab.load(Relaxed);
        self.n_slab_bytes.store(n_left, Relaxed);
        self.slab.store(block.wrapping_add(n_bytes), Relaxed);
        block
    }

    /// The same of a new slab. What the old one had left goes to a shelf.
    fn cut_new(&self, n_bytes: usize) -> *mut u8 {
        let Ok(layout) = Layout::from_size_align(SLAB_BYTES, STEP_BYTES) else {
            return null_mut();
        };
        // SAFETY: the layout has a size.
        let slab = unsafe { System.alloc(layout) };
        if slab.is_null() {
            return null_mut();
        }
        let rest = self.slab.swap(slab.wrapping_add(n_bytes), Relaxed);
        let n_rest = self.n_slab_bytes.swap(SLAB_BYTES - n_bytes, Relaxed);
        if let Some(shelf) = self.shelves.get((n_rest / STEP_BYTES).wrapping_sub(1)) {
            // SAFETY: the rest was cut off no block, and has the size of this shelf's: slabs and
            // blocks are multiples of the step, and a block that did not fit was no larger.
            unsafe { put(shelf, rest) };
        }
        slab
    }
}

impl Default for Heap {
    fn default() -> Heap {
        Heap::new()
    }
}

/// Puts a block on its shelf.
///
/// # Safety
///
/// The block must be of the size of this shelf's, aligned to the step, and nobody's.
unsafe fn put(shelf: &AtomicPtr<u8>, block: *mut u8) {
    // SAFETY: a block has room for an address, and is aligned for one.
    unsafe { block.cast::<*mut u8>().write(shelf.load(Relaxed)) };
    shelf.store(block, Relaxed);
}

// SAFETY: a block is on a shelf, or in a slab's rest, or somebody's; each is at least as large as
// its shelf says, and aligned to the step. Shelf and system are told apart by the layout alone,
// which is the same when a block comes back.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some((shelf, n_bytes)) = self.shelf(layout) else {
            // SAFETY: the caller's own promise.
            return unsafe { System.alloc(layout) };
        };
        let block = shelf.load(Relaxed);
        if block.is_null() {
            return self.cut(n_bytes);
        }
        // SAFETY: a block on a shelf holds the address of the next.
        shelf.store(unsafe { block.cast::<*mut u8>().read() }, Relaxed);
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match self.shelf(layout) {
            // SAFETY: the block came from this shelf, since its layout says so, and is nobody's now.
            Some((shelf, _)) => unsafe { put(shelf, block) },
            // SAFETY: the caller's own promise.
            None => unsafe { System.dealloc(block, layout) },
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, n_bytes: usize) -> *mut u8 {
        let Ok(wanted) = Layout::from_size_align(n_bytes, layout.align()) else {
            return null_mut();
        };
        match (self.shelf(layout), self.shelf(wanted)) {
            // SAFETY: the caller's own promise.
            (None, None) => return unsafe { System.realloc(block, layout, n_bytes) },
            (Some((_, held)), Some((_, needed))) if held == needed => return block,
            _ => {}
        }
        // SAFETY: the caller promises that the size is not 0.
        let moved = unsafe { self.alloc(wanted) };
        if !moved.is_null() {
            let n_kept = layout.size().min(n_bytes);
            // SAFETY: both blocks have that many bytes, and the new one was nobody's; the old one
            // is given back by its own layout.
            unsafe {
                std::ptr::copy_nonoverlapping(block, moved, n_kept);
                self.dealloc(block, layout);
            }
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A block in use, filled with a number of its own.
    struct Used {
        block: *mut u8,
        layout: Layout,
        mark: u8,
    }

    impl Used {
        fn of(heap: &Heap, n_bytes: usize, align: usize, mark: u8) -> Used {
            let layout = Layout::from_size_align(n_bytes, align).unwrap();
            // SAFETY: the layout has a size, and the block as many bytes.
            let block = unsafe {
                let block = heap.alloc(layout);
                block.write_bytes(mark, n_bytes);
                block
            };
            assert_eq!(block as usize % align, 0);
            Used {
                block,
                layout,
                mark,
            }
        }

        fn resize(&mut self, heap: &Heap, n_bytes: usize) {
            let n_kept = self.layout.size().min(n_bytes);
            // SAFETY: the block is in use under this layout, and then under the new one.
            unsafe {
                self.block = heap.realloc(self.block, self.layout, n_bytes);
                assert_eq!(self.block as usize % self.layout.align(), 0);
                let kept = std::slice::from_raw_parts(self.block, n_kept);
                assert!(kept.iter().all(|byte| *byte == self.mark));
                self.block.write_bytes(self.mark, n_bytes);
            }
            self.layout = Layout::from_size_align(n_bytes, self.layout.align()).unwrap();
        }

        /// Nobody else has written into it.
        fn give_back(self, heap: &Heap) {
            // SAFETY: the block is in use under this layout, and was filled.
            unsafe {
                let bytes = std::slice::from_raw_parts(self.block, self.layout.size());
                assert!(bytes.iter().all(|byte| *byte == self.mark));
                heap.dealloc(self.block, self.layout);
            }
        }
    }

    fn size() -> impl Strategy<Value = usize> {
        prop_oneof![
            1..64_usize,
            1..3_000_usize,
            2_030..2_070_usize,
            1..40_000_usize
        ]
    }

    proptest! {
        #[test]
        fn no_two_blocks_in_use_overlap(
            steps in proptest::collection::vec((0..4_u8, size(), 0..7_u32, any::<usize>()), 1..400),
        ) {
            let heap = Heap::new();
            let mut used: Vec<Used> = Vec::new();
            for (n, (step, n_bytes, align, which)) in steps.into_iter().enumerate() {
                let mark = n as u8;
                match (step, used.len()) {
                    (0 | 1, _) | (_, 0) => used.push(Used::of(&heap, n_bytes, 1 << align, mark)),
                    (2, n_used) => used[which % n_used].resize(&heap, n_bytes),
                    (_, n_used) => used.swap_remove(which % n_used).give_back(&heap),
                }
            }
            used.into_iter().for_each(|used| used.give_back(&heap));
        }
    }

    #[test]
    fn what_was_given_back_is_given_out_again() {
        let heap = Heap::new();
        let round = || {
            let sizes = [1, 16, 17, 400, 1_024, 2_048];
            let used: Vec<Used> = sizes.iter().map(|n| Used::of(&heap, *n, 8, 1)).collect();
            let mut places: Vec<usize> = used.iter().map(|used| used.block as usize).collect();
            used.into_iter().for_each(|used| used.give_back(&heap));
            places.sort_unstable();
            places
        };
        let first = round();
        for _ in 0..1_000 {
            assert_eq!(round(), first);
        }
    }
}
