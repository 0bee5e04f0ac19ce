//! The proxy-wasm filter: meters LLM calls inside Envoy.
//!
//! [`session`] is one HTTP call as a state machine without host calls; `host` and `entry` are the
//! only files that know the ABI, the one what we call and the other what is called; `root` and
//! `stream` carry callbacks to sessions. The host exists in a proxy only, so these are built for
//! wasm alone, and all else is tested natively.

#![cfg_attr(
    not(test),
    deny(
        clippy::panic,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing
    )
)]

pub mod calibration;
pub mod config;
pub mod counters;
pub mod edit;
pub mod fingerprint;
pub mod headers;
pub mod ids;
pub mod queue;
pub mod record;
pub mod session;
pub mod signature;
pub mod source;
pub mod tags;
pub mod trace;

#[cfg(target_arch = "wasm32")]
mod entry;
#[cfg(target_arch = "wasm32")]
pub mod host;
#[cfg(target_arch = "wasm32")]
mod memory;
#[cfg(target_arch = "wasm32")]
pub mod root;
#[cfg(target_arch = "wasm32")]
pub mod stream;
#[cfg(target_arch = "wasm32")]
pub mod worker;
