//! Proves that decoders of one VM stay within their pool, by what is really allocated.
//!
//! A test file of its own, since the allocator counts for the whole process.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use tollmesh_usage::{
    Api, DecoderPool, POOL_BYTES_MAX, RequestFacts, ResponseHead, Target, Trouble, UsageScanner,
};

static IN_USE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

struct Counting;

#[allow(unsafe_code, reason = "an allocator is unsafe by its signature")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let in_use = IN_USE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(in_use, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const STREAMS: usize = 2000;

/// A scanner itself and what framing and dialect keep, decoders aside.
const SCANNER_BYTES_MAX: usize = 16 << 10;

/// The beginning of a frame whose window is 8 MiB, and 9 MiB of one repeated byte in blocks.
fn zstd_of_8_mib() -> Vec<u8> {
    let mut body = vec![0x28, 0xB5, 0x2F, 0xFD, 0, 13 << 3];
    let block = (1u32 << 1 | 128 << 10 << 3).to_le_bytes();
    for _ in 0..72 {
        body.extend_from_slice(&block[..3]);
        body.push(b' ');
    }
    body
}

/// A body of a window of 2^23 bytes (WBITS 0b1101), and 1 MiB uncompressed in its first part.
fn brotli_of_8_mib() -> Vec<u8> {
    let n_bytes = 1u64 << 20;
    // WBITS (4 bits), not the last, five nibbles, the length less one, uncompressed.
    let bits = 0b1101 | 1 << 5 | (n_bytes - 1) << 7 | 1 << 27;
    let mut body = bits.to_le_bytes()[..4].to_vec();
    body.extend(std::iter::repeat_n(b' ', 1 << 20));
    body
}

fn gzip() -> Vec<u8> {
    vec![
        0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 3, 1, 4, 0, 0xFB, 0xFF, b' ', b' ', b' ', b' ',
    ]
}

/// The most that so many streams allocated together, and how many of them were decoded.
fn open_together(encoding: &str, body: &[u8]) -> (usize, usize) {
    let target = Target::new(Api::OpenAiChat, "openai");
    let head = ResponseHead {
        status: 200,
        headers: vec![("content-encoding".to_owned(), encoding.to_owned())],
    };
    let request = RequestFacts::default();
    let pool = DecoderPool::default();
    let before = IN_USE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let mut scanners = Vec::new();
    for _ in 0..STREAMS {
        let mut scanner = UsageScanner::with_pool(&target, &request, &head, &pool);
        scanner.push(body);
        scanners.push(scanner);
    }
    let peak = PEAK.load(Ordering::Relaxed) - before;
    let scans = scanners.into_iter().map(UsageScanner::finish);
    let n_refused = scans
        .filter(|scan| scan.trouble == Some(Trouble::DecoderBudget))
        .count();
    assert_eq!(pool.n_bytes_left(), POOL_BYTES_MAX, "{encoding} gives back");
    (peak, STREAMS - n_refused)
}

/// Text of which little repeats, so that blocks are long and have many literals.
fn dense_zstd() -> Vec<u8> {
    let words =
        (0..100_000u64).map(|n| format!(" w{:016x}", n.wrapping_mul(0x9E37_79B9_7F4A_7C15)));
    let text = format!(
        "{{\"choices\":[{{\"text\":\"{}\"}}]}}",
        words.collect::<String>()
    );
    compress_to_vec(text.as_bytes(), CompressionLevel::Fastest)
}

/// What a stream allocates at any time is no more than what it has reserved by then.
fn stays_within_its_reservation(encoding: &str, body: &[u8]) {
    let target = Target::new(Api::OpenAiChat, "openai");
    let head = ResponseHead {
        status: 200,
        headers: vec![("content-encoding".to_owned(), encoding.to_owned())],
    };
    let pool = DecoderPool::default();
    let before = IN_USE.load(Ordering::Relaxed);
    let mut scanner = UsageScanner::with_pool(&target, &RequestFacts::default(), &head, &pool);
    // The end of a frame gives everything back.
    let mut n_most = 0;
    for chunk in body[..body.len() - 2000].chunks(1000) {
        PEAK.store(IN_USE.load(Ordering::Relaxed), Ordering::Relaxed);
        scanner.push(chunk);
        let peak = PEAK.load(Ordering::Relaxed) - before;
        let n_reserved = usize::try_from(POOL_BYTES_MAX - pool.n_bytes_left()).expect("64 MiB");
        assert!(
            peak <= n_reserved + SCANNER_BYTES_MAX,
            "{encoding}: {peak} of {n_reserved}"
        );
        n_most = n_most.max(peak);
    }
    assert!(n_most > SCANNER_BYTES_MAX, "{encoding} was decoded");
    println!("{encoding}: {} KiB at most", n_most >> 10);
}

/// One test, since the allocator counts for the whole process.
#[test]
fn decoders_stay_within_what_they_reserve_and_that_within_the_pool() {
    stays_within_its_reservation("zstd", &dense_zstd());
    two_thousand_streams_stay_within_the_pool();
}

fn two_thousand_streams_stay_within_the_pool() {
    let pool = usize::try_from(POOL_BYTES_MAX).expect("64 MiB");
    for (encoding, body, n_least) in [
        ("zstd", zstd_of_8_mib(), 4),
        ("br", brotli_of_8_mib(), 7),
        ("gzip", gzip(), 1365),
    ] {
        let (peak, n_decoded) = open_together(encoding, &body);
        println!(
            "{encoding}: {n_decoded} of {STREAMS} decoded, {} KiB",
            peak >> 10
        );
        assert!(
            peak <= pool + STREAMS * SCANNER_BYTES_MAX,
            "{encoding}: {peak}"
        );
        assert!(
            (n_least..STREAMS).contains(&n_decoded),
            "{encoding}: {n_decoded}"
        );
    }
}
