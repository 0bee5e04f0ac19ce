//! The proxy-wasm filter: meters LLM calls inside Envoy.
//!
//! [`session`] is one HTTP call as a state machine without host calls; [`host`] is the only file
//! that knows the ABI; [`root`] and [`stream`] carry callbacks from the one to the other. The host
//! exists in a proxy only, so those three are built for wasm alone, and all else is tested
//! natively. [`heap`] is where the module's memory comes from.

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
pub mod chunk;
pub mod config;
pub mod counters;
pub mod decisions;
pub mod edit;
pub mod fingerprint;
pub mod headers;
pub mod heap;
pub mod heirs;
pub mod ids;
pub mod path;
pub mod queue;
pub mod record;
pub mod session;
pub mod shared;
pub mod signature;
pub mod source;
pub mod tags;
pub mod trace;
pub mod verdicts;

#[cfg(target_arch = "wasm32")]
pub mod host;
#[cfg(target_arch = "wasm32")]
pub mod root;
#[cfg(target_arch = "wasm32")]
pub mod stream;
#[cfg(target_arch = "wasm32")]
pub mod worker;

#[cfg(target_arch = "wasm32")]
mod entry {
    //! What the host calls when it has loaded the module.

    proxy_wasm::main! {{
        proxy_wasm::set_root_context(|_| Box::new(crate::root::Root::default()));
    }}
}
