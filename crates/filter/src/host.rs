//! The proxy-wasm ABI (0.2.1): host calls that report refusals and never panic.
//!
//! The wrappers of the `proxy-wasm` crate panic on any status that they do not expect and on
//! header values that are not UTF-8, and a panic costs every stream of a worker. Here every call
//! returns a `Result`. The crate's dispatcher is used only to be called; its one wrapper in use is
//! that for HTTP calls, since only it can register the call's token with the dispatcher.
//!
//! This file and `heap` are the only ones with `unsafe` in them.

#![allow(unsafe_code)]

use std::ptr::null_mut;
use std::time::Duration;

use proxy_wasm::types::{BufferType, LogLevel, MapType, MetricType, Status, StreamType};

use crate::chunk::Buffer;
use crate::shared::Shared;

/// The number of a host call's refusal (`proxy_status_t`,
/// <https://github.com/proxy-wasm/spec/tree/main/abi-versions/v0.2.1>).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused(pub u32);

mod abi {
    //! Statuses are plain numbers here: a status that the crate's enum does not know would be
    //! undefined behaviour.

    #[link(wasm_import_module = "env")]
    unsafe extern "C" {
        pub fn proxy_log(level: u32, message: *const u8, size: usize) -> u32;
        pub fn proxy_get_current_time_nanoseconds(time: *mut u64) -> u32;
        pub fn proxy_set_tick_period_milliseconds(period: u32) -> u32;
        pub fn proxy_get_buffer_bytes(
            buffer: u32,
            start: usize,
            size_max: usize,
            data: *mut *mut u8,
            size: *mut usize,
        ) -> u32;
        pub fn proxy_set_buffer_bytes(
            buffer: u32,
            start: usize,
            replaced: usize,
            data: *const u8,
            size: usize,
        ) -> u32;
        pub fn proxy_get_header_map_pairs(map: u32, data: *mut *mut u8, size: *mut usize) -> u32;
        pub fn proxy_replace_header_map_value(
            map: u32,
            name: *const u8,
            name_size: usize,
            value: *const u8,
            value_size: usize,
        ) -> u32;
        pub fn proxy_remove_header_map_value(map: u32, name: *const u8, name_size: usize) -> u32;
        pub fn proxy_get_property(
            path: *const u8,
            path_size: usize,
            data: *mut *mut u8,
            size: *mut usize,
        ) -> u32;
        pub fn proxy_set_property(
            path: *const u8,
            path_size: usize,
            value: *const u8,
            value_size: usize,
        ) -> u32;
        pub fn proxy_send_local_response(
            status: u32,
            details: *const u8,
            details_size: usize,
            body: *const u8,
            body_size: usize,
            headers: *const u8,
            headers_size: usize,
            grpc_status: i32,
        ) -> u32;
        pub fn proxy_define_metric(
            kind: u32,
            name: *const u8,
            name_size: usize,
            id: *mut u32,
        ) -> u32;
        pub fn proxy_increment_metric(id: u32, by: i64) -> u32;
        pub fn proxy_continue_stream(stream: u32) -> u32;
        pub fn proxy_get_shared_data(
            key: *const u8,
            key_size: usize,
            data: *mut *mut u8,
            size: *mut usize,
            mark: *mut u32,
        ) -> u32;
        pub fn proxy_set_shared_data(
            key: *const u8,
            key_size: usize,
            data: *const u8,
            size: usize,
            mark: u32,
        ) -> u32;
        pub fn proxy_done() -> u32;
    }
}

/// Writes a line to Envoy's log.
pub fn log(level: LogLevel, message: &str) {
    // SAFETY: pointer and size are of one live string. Nobody can be told that logging failed.
    let _ = unsafe { abi::proxy_log(level as u32, message.as_ptr(), message.len()) };
}

/// Nanoseconds since 1970.
pub fn now_ns() -> Result<u64, Refused> {
    let mut time = 0;
    // SAFETY: the host writes eight bytes to a live u64.
    let status = unsafe { abi::proxy_get_current_time_nanoseconds(&mut time) };
    done(status).map(|()| time)
}

/// Has the root context called back every that many milliseconds.
pub fn set_tick_period_ms(period: u32) -> Result<(), Refused> {
    // SAFETY: no pointers.
    done(unsafe { abi::proxy_set_tick_period_milliseconds(period) })
}

/// The bytes of a buffer from its start, at most `size_max`.
pub fn buffer(kind: BufferType, size_max: usize) -> Result<Vec<u8>, Refused> {
    buffer_part(kind, 0, size_max)
}

fn buffer_part(kind: BufferType, from: usize, size_max: usize) -> Result<Vec<u8>, Refused> {
    let (mut data, mut size) = (null_mut(), 0);
    // SAFETY: the host writes a pointer and a size to live variables.
    let status =
        unsafe { abi::proxy_get_buffer_bytes(kind as u32, from, size_max, &mut data, &mut size) };
    done(status)?;
    // SAFETY: both come from this very call.
    Ok(unsafe { owned(data, size) })
}

/// The buffer of a body, while its callback lasts.
#[derive(Clone, Copy, Debug)]
pub struct BodyBuffer(pub BufferType);

impl BodyBuffer {
    /// Puts bytes in the place of `size` ones from `from` on. The host takes a place at the very
    /// front, or any place behind the end (`Buffer::copyFrom` in Envoy's `contexts/common/wasm`).
    fn set(self, from: usize, size: usize, bytes: &[u8]) -> Result<(), Refused> {
        let (data, n_bytes) = (bytes.as_ptr(), bytes.len());
        // SAFETY: pointer and size are of one live slice.
        done(unsafe { abi::proxy_set_buffer_bytes(self.0 as u32, from, size, data, n_bytes) })
    }
}

impl Buffer for BodyBuffer {
    type Refused = Refused;

    fn part(&self, from: usize, size_max: usize) -> Result<Vec<u8>, Refused> {
        buffer_part(self.0, from, size_max)
    }

    fn replace(&self, bytes: &[u8]) -> Result<(), Refused> {
        self.set(0, usize::MAX, bytes)
    }

    fn drop_front(&self, size: usize) -> Result<(), Refused> {
        self.set(0, size, &[])
    }

    fn append(&self, bytes: &[u8]) -> Result<(), Refused> {
        self.set(usize::MAX, 0, bytes)
    }
}

/// A header map, serialised.
pub fn header_map(kind: MapType) -> Result<Vec<u8>, Refused> {
    let (mut data, mut size) = (null_mut(), 0);
    // SAFETY: the host writes a pointer and a size to live variables.
    let status = unsafe { abi::proxy_get_header_map_pairs(kind as u32, &mut data, &mut size) };
    done(status)?;
    // SAFETY: both come from this very call.
    Ok(unsafe { owned(data, size) })
}

/// Makes the first header of that name have this value, or adds one.
pub fn set_header(kind: MapType, name: &str, value: &[u8]) -> Result<(), Refused> {
    // SAFETY: each pointer and size are of one live slice.
    done(unsafe {
        abi::proxy_replace_header_map_value(
            kind as u32,
            name.as_ptr(),
            name.len(),
            value.as_ptr(),
            value.len(),
        )
    })
}

/// Takes every header of that name out.
pub fn remove_header(kind: MapType, name: &str) -> Result<(), Refused> {
    // SAFETY: pointer and size are of one live string.
    done(unsafe { abi::proxy_remove_header_map_value(kind as u32, name.as_ptr(), name.len()) })
}

/// The value of a property; the parts of its path are separated by zero bytes.
pub fn property(path: &str) -> Result<Vec<u8>, Refused> {
    let (mut data, mut size) = (null_mut(), 0);
    // SAFETY: the host reads one live string, and writes a pointer and a size to live variables.
    let status =
        unsafe { abi::proxy_get_property(path.as_ptr(), path.len(), &mut data, &mut size) };
    done(status)?;
    // SAFETY: both come from this very call.
    Ok(unsafe { owned(data, size) })
}

/// Sets a property, which Envoy keeps as filter state named `wasm.` and this path.
pub fn set_property(path: &str, value: &[u8]) -> Result<(), Refused> {
    let (data, size) = (value.as_ptr(), value.len());
    // SAFETY: each pointer and size are of one live slice.
    done(unsafe { abi::proxy_set_property(path.as_ptr(), path.len(), data, size) })
}

/// Answers a request in the upstream's place. `headers` is a serialised map.
pub fn respond(status: u16, details: &str, headers: &[u8], body: &[u8]) -> Result<(), Refused> {
    const NO_GRPC_STATUS: i32 = -1;
    // SAFETY: each pointer and size are of one live slice.
    done(unsafe {
        abi::proxy_send_local_response(
            u32::from(status),
            details.as_ptr(),
            details.len(),
            body.as_ptr(),
            body.len(),
            headers.as_ptr(),
            headers.len(),
            NO_GRPC_STATUS,
        )
    })
}

/// Defines a counter; its id.
pub fn define_counter(name: &str) -> Result<u32, Refused> {
    let mut id = 0;
    let kind = MetricType::Counter as u32;
    // SAFETY: the host reads one live string and writes four bytes to a live u32.
    let status = unsafe { abi::proxy_define_metric(kind, name.as_ptr(), name.len(), &mut id) };
    done(status).map(|()| id)
}

/// Adds to a counter.
pub fn increment_counter(id: u32, by: u64) -> Result<(), Refused> {
    let by = i64::try_from(by).unwrap_or(i64::MAX);
    // SAFETY: no pointers.
    done(unsafe { abi::proxy_increment_metric(id, by) })
}

/// Tells the host that this context, whose `on_done` returned false, is done after all.
pub fn tell_done() -> Result<(), Refused> {
    // SAFETY: no pointers.
    done(unsafe { abi::proxy_done() })
}

/// Lets the request of the active stream go on after a pause.
pub fn resume_request() -> Result<(), Refused> {
    // SAFETY: no pointers.
    done(unsafe { abi::proxy_continue_stream(StreamType::HttpRequest as u32) })
}

/// Values that all VMs of this proxy with our VM id see.
#[derive(Debug)]
pub struct SharedData;

/// A mark that no value has: the host takes any mark for a key without a value, and compares those
/// of keys with one; it counts marks from 1 (`SharedData` in proxy-wasm-cpp-host).
const NO_MARK: u32 = u32::MAX;
/// Has the host set a value whatever its mark is.
const ANY_MARK: u32 = 0;

impl Shared for SharedData {
    fn get(&self, key: &str) -> Option<(Vec<u8>, u32)> {
        let (mut data, mut size, mut mark) = (null_mut(), 0, 0);
        // SAFETY: the host reads one live string, and writes to three live variables.
        let status = unsafe {
            abi::proxy_get_shared_data(key.as_ptr(), key.len(), &mut data, &mut size, &mut mark)
        };
        done(status).ok()?;
        // SAFETY: both come from this very call.
        Some((unsafe { owned(data, size) }, mark))
    }

    fn set(&self, key: &str, value: &[u8], mark: Option<u32>) -> bool {
        set_shared(key, value, mark.unwrap_or(NO_MARK)).is_ok()
    }

    fn put(&self, key: &str, value: &[u8]) {
        // With no mark to compare, the host refuses nothing.
        let _ = set_shared(key, value, ANY_MARK);
    }
}

fn set_shared(key: &str, value: &[u8], mark: u32) -> Result<(), Refused> {
    let (data, size) = (value.as_ptr(), value.len());
    // SAFETY: each pointer and size are of one live slice.
    done(unsafe { abi::proxy_set_shared_data(key.as_ptr(), key.len(), data, size, mark) })
}

/// Asks a cluster for something; the answer comes as that of [`post`].
pub fn ask(cluster: &str, headers: Vec<(&str, &str)>, timeout: Duration) -> Result<u32, Refused> {
    proxy_wasm::hostcalls::dispatch_http_call(cluster, headers, None, vec![], timeout)
        .map_err(|status| Refused(status as u32))
}

/// Starts an HTTP call to a cluster; its answer comes to the context that is active now.
///
/// Of what Envoy answers here (`Context::httpCall` in `contexts/common/wasm`) the wrapper knows
/// every status, so it does not panic.
pub fn post(
    cluster: &str,
    headers: Vec<(&str, &str)>,
    body: &[u8],
    timeout: Duration,
) -> Result<u32, Refused> {
    proxy_wasm::hostcalls::dispatch_http_call(cluster, headers, Some(body), vec![], timeout)
        .map_err(|status| Refused(status as u32))
}

fn done(status: u32) -> Result<(), Refused> {
    const OK: u32 = Status::Ok as u32;
    match status {
        OK => Ok(()),
        refused => Err(Refused(refused)),
    }
}

/// Takes over what the host has put into our memory.
///
/// # Safety
///
/// `data` and `size` must be what the host returned by one call that succeeded, or null and 0.
unsafe fn owned(data: *mut u8, size: usize) -> Vec<u8> {
    if data.is_null() || size == 0 {
        return Vec::new();
    }
    // SAFETY: the host gets the memory of what it returns from `proxy_on_memory_allocate` of the
    // `proxy-wasm` crate, which makes it as a boxed slice of just that size.
    unsafe { Vec::from_raw_parts(data, size, size) }
}
