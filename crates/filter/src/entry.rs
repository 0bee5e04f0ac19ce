//! What the host calls: the exports of the proxy-wasm ABI (0.2.1), each led to its context.
//!
//! The ABI's crate for Rust has such a table of contexts, too; a stream has some ten callbacks, and
//! each would look through two or three hash tables there, made for keys that an attacker chooses.
//! The host counts its contexts up, so here one look at one table does.

#![allow(unsafe_code)]

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

use crate::host::Action;
use crate::root::Root;
use crate::stream::Stream;

thread_local! {
    static CONTEXTS: RefCell<Contexts> = const { RefCell::new(Contexts::new()) };
}

/// Every context of this VM by the host's number for it.
struct Contexts {
    roots: BTreeMap<u32, Root>,
    streams: HashMap<u32, Stream, BuildHasherDefault<Spread>>,
}

/// Spreads numbers that were counted up (Fibonacci hashing: the golden ratio's fraction, in 64
/// bits). Only the host chooses the keys.
#[derive(Default)]
struct Spread(u64);

impl Contexts {
    const fn new() -> Contexts {
        Contexts {
            roots: BTreeMap::new(),
            streams: HashMap::with_hasher(BuildHasherDefault::new()),
        }
    }

    /// A root context has no parent, number 0.
    fn create(&mut self, id: u32, parent: u32) {
        if parent == 0 {
            self.roots.insert(id, Root::default());
        } else if let Some(root) = self.roots.get(&parent) {
            self.streams.insert(id, root.stream());
        }
    }
}

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u32(&mut self, n: u32) {
        self.write_u64(n.into());
    }

    fn write_u64(&mut self, n: u64) {
        self.0 = (self.0.rotate_left(5) ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// Leads a callback to the contexts. The host never calls back while it answers a call of ours,
/// but to have memory; were it to do so, that callback would change nothing.
fn with<T>(unknown: T, callback: impl FnOnce(&mut Contexts) -> Option<T>) -> T {
    CONTEXTS.with(|contexts| match contexts.try_borrow_mut() {
        Ok(mut contexts) => callback(&mut contexts).unwrap_or(unknown),
        Err(_) => unknown,
    })
}

fn with_stream(id: u32, callback: impl FnOnce(&mut Stream) -> Action) -> Action {
    with(Action::Continue, |contexts| {
        contexts.streams.get_mut(&id).map(callback)
    })
}

fn with_root<T>(id: u32, unknown: T, callback: impl FnOnce(&mut Root) -> T) -> T {
    with(unknown, |contexts| {
        contexts.roots.get_mut(&id).map(callback)
    })
}

// SAFETY of the exported names: they are the ABI's, and nothing else in this module has them.

/// Runs the constructors of the C library, as every reactor has to before anything else.
#[unsafe(no_mangle)]
extern "C" fn _initialize() {
    unsafe extern "C" {
        fn __wasm_call_ctors();
    }
    // SAFETY: the linker makes this function, and the host calls `_initialize` once.
    unsafe { __wasm_call_ctors() };
}

/// By its mere name: the version of the ABI that is spoken here.
#[unsafe(no_mangle)]
extern "C" fn proxy_abi_version_0_2_1() {}

/// Memory for what a host call returns, taken over by `host::owned`.
#[unsafe(no_mangle)]
extern "C" fn proxy_on_memory_allocate(size: usize) -> *mut u8 {
    let mut memory = std::mem::ManuallyDrop::new(Vec::with_capacity(size));
    memory.as_mut_ptr()
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_context_create(id: u32, parent: u32) {
    with((), |contexts| {
        contexts.create(id, parent);
        Some(())
    });
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_vm_start(_: u32, _: usize) -> bool {
    true
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_configure(id: u32, size: usize) -> bool {
    with_root(id, true, |root| root.on_configure(size))
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_tick(id: u32) {
    with_root(id, (), Root::on_tick);
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_http_call_response(id: u32, _: u32, _: usize, size: usize, _: usize) {
    with_root(id, (), |root| root.on_http_call_response(size));
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_request_headers(id: u32, _: usize, ends: bool) -> Action {
    with_stream(id, |stream| stream.on_request_headers(ends))
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_request_body(id: u32, size: usize, ends: bool) -> Action {
    with_stream(id, |stream| stream.on_request_body(size, ends))
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_response_headers(id: u32, _: usize, ends: bool) -> Action {
    with_stream(id, |stream| stream.on_response_headers(ends))
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_response_body(id: u32, size: usize, ends: bool) -> Action {
    with_stream(id, |stream| stream.on_response_body(size, ends))
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_response_trailers(id: u32, _: usize) -> Action {
    with_stream(id, Stream::on_response_trailers)
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_log(id: u32) {
    with((), |contexts| {
        contexts.streams.get_mut(&id).map(Stream::on_log)
    });
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_done(id: u32) -> bool {
    with_root(id, true, Root::on_done)
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_delete(id: u32) {
    with((), |contexts| {
        if contexts.streams.remove(&id).is_none() {
            contexts.roots.remove(&id);
        }
        Some(())
    });
}
