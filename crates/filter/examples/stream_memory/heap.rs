//! The heap of this process, counted byte by byte while the filter's own code runs.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

static IS_COUNTING: AtomicBool = AtomicBool::new(false);
static IN_USE: AtomicI64 = AtomicI64::new(0);
static PEAK: AtomicI64 = AtomicI64::new(0);

/// Counts what is asked for, rounding and headers of the allocator beneath left aside.
///
/// `realloc` is the trait's own: what is copied is counted twice while it is, as it is there.
struct Counting;

#[allow(unsafe_code, reason = "an allocator is unsafe by its signature")]
// SAFETY: every call goes on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed() as i64);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size().cast_signed() as i64));
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count(n_bytes: i64) {
    if IS_COUNTING.load(Ordering::Relaxed) {
        let in_use = IN_USE.fetch_add(n_bytes, Ordering::Relaxed) + n_bytes;
        PEAK.fetch_max(in_use, Ordering::Relaxed);
    }
}

/// Begins anew; nothing that was counted may still be held.
pub fn reset() {
    IN_USE.store(0, Ordering::Relaxed);
    PEAK.store(0, Ordering::Relaxed);
}

/// Counts what `work` takes and gives back. What others do between two of these calls, such as
/// making the body, is not counted.
pub fn counted<T>(work: impl FnOnce() -> T) -> T {
    IS_COUNTING.store(true, Ordering::Relaxed);
    let done = work();
    IS_COUNTING.store(false, Ordering::Relaxed);
    done
}

/// The most that was in use at a time since [`reset`], in bytes.
pub fn peak_bytes() -> u64 {
    u64::try_from(PEAK.load(Ordering::Relaxed)).unwrap_or(0)
}
