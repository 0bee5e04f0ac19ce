//! Where the filter's memory comes from: small pieces out of stacks by size, the rest as usual.
//!
//! A call asks for some hundred small pieces and gives them back in the same breath. A general
//! allocator keeps books on each, which costs a call more than what it does with them. Here a
//! piece that is given back lies on top of the stack of its size, and is the next one taken.
//!
//! Pieces of one size are never joined to make one of another, so the memory of small pieces is
//! bounded by the sum of what each size needed at its busiest.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr::null_mut;

/// Sizes are rounded up to a multiple of this, bytes; no piece is aligned to more.
const STEP_BYTES: usize = 16;
/// The largest small piece, bytes: beyond lie the buffers of bodies, one or two a call.
const SMALL_BYTES_MAX: usize = 1024;
const N_SIZES: usize = SMALL_BYTES_MAX / STEP_BYTES;
/// What is cut into small pieces at a time, bytes: one page of wasm's memory.
const BLOCK_BYTES: usize = 64 * 1024;

#[global_allocator]
static MEMORY: Memory = Memory {
    free: [const { Cell::new(null_mut()) }; N_SIZES],
    uncut: Cell::new(null_mut()),
    n_uncut: Cell::new(0),
};

struct Memory {
    /// The top of the stack of each size. The first word of a free piece points to the one below.
    free: [Cell<*mut u8>; N_SIZES],
    /// The rest of the block that is being cut.
    uncut: Cell<*mut u8>,
    n_uncut: Cell<usize>,
}

// SAFETY: a proxy-wasm VM has one thread, and the module is built without shared memory.
unsafe impl Sync for Memory {}

/// The size's place among the sizes, where a piece is a small one. A piece of no bytes is never
/// asked for.
fn place(layout: &Layout) -> Option<usize> {
    let place = layout.size().wrapping_sub(1) / STEP_BYTES;
    (place < N_SIZES && layout.align() <= STEP_BYTES).then_some(place)
}

impl Memory {
    /// A piece that was never used. What is left of the block before is too small, and is lost.
    #[cold]
    fn cut(&self, place: usize) -> *mut u8 {
        let size = (place + 1) * STEP_BYTES;
        if self.n_uncut.get() < size {
            // SAFETY: the layout is a constant of a size that is not zero.
            let block = unsafe { System.alloc(BLOCK) };
            if block.is_null() {
                return block;
            }
            self.uncut.set(block);
            self.n_uncut.set(BLOCK_BYTES);
        }
        let piece = self.uncut.get();
        // SAFETY: at least `size` bytes of the block are left.
        self.uncut.set(unsafe { piece.add(size) });
        self.n_uncut.set(self.n_uncut.get() - size);
        piece
    }
}

const BLOCK: Layout = match Layout::from_size_align(BLOCK_BYTES, STEP_BYTES) {
    Ok(layout) => layout,
    Err(_) => unreachable!(),
};

// SAFETY: a piece is on a stack, or in use, or uncut, and never two of these; it is as large as its
// size's place says and aligned as the block is, whose pieces are multiples of `STEP_BYTES`. The
// same layout leads to the same place, or to `System`, when it is taken and when it is given back.
unsafe impl GlobalAlloc for Memory {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some((place, top)) = place(&layout).and_then(|p| Some((p, self.free.get(p)?))) else {
            // SAFETY: the caller's promise is passed on.
            return unsafe { System.alloc(layout) };
        };
        let piece = top.get();
        if piece.is_null() {
            return self.cut(place);
        }
        // SAFETY: a piece on a stack holds a pointer in its first word.
        top.set(unsafe { piece.cast::<*mut u8>().read() });
        piece
    }

    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        let Some(top) = place(&layout).and_then(|p| self.free.get(p)) else {
            // SAFETY: the caller's promise is passed on; `alloc` took this layout from `System`.
            return unsafe { System.dealloc(piece, layout) };
        };
        // SAFETY: the piece is nobody's now, and is larger than a word.
        unsafe { piece.cast::<*mut u8>().write(top.get()) };
        top.set(piece);
    }

    unsafe fn realloc(&self, piece: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller promises a size that is not zero and fits the alignment.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        match (place(&layout), place(&wanted)) {
            // SAFETY: the caller's promise is passed on.
            (None, None) => unsafe { System.realloc(piece, layout, size) },
            (Some(old), Some(new)) if old == new => piece,
            _ => {
                // SAFETY: the layout is the caller's, of a size that is not zero.
                let moved = unsafe { self.alloc(wanted) };
                if !moved.is_null() {
                    let n_kept = size.min(layout.size());
                    // SAFETY: both pieces are that large, and no two pieces overlap.
                    unsafe { piece.copy_to_nonoverlapping(moved, n_kept) };
                    // SAFETY: the piece is given back as it was taken, and only once.
                    unsafe { self.dealloc(piece, layout) };
                }
                moved
            }
        }
    }
}
