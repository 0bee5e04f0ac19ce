//! Bytes of provider exchanges to token counts.
//!
//! Sans-I/O: nothing here reads, writes, logs, asks for the time or allocates in proportion to a
//! body. Callers [`detect`] once what a request is, feed its body to a [`RequestBody`] and the
//! response's to a [`UsageScanner`], and receive a [`Scan`]: the usage found *and* what was wrong.

#![cfg_attr(
    not(test),
    deny(
        clippy::panic,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing
    )
)]

pub mod batch;
mod block;
pub mod bucket;
mod counts;
mod decode;
pub mod detect;
mod dialect;
mod distinct;
pub mod estimate;
mod eventstream;
mod findings;
mod framing;
pub mod inclusive;
pub mod json;
pub mod live;
pub mod pattern;
pub mod relayed;
pub mod request;
pub mod response;
pub mod scan;
mod served;
mod sse;
pub mod strip;
mod verdict;
mod ws;

pub use bucket::{Bucket, Quantity, Unit, Usage};
pub use decode::{DecoderPool, POOL_BYTES_MAX};
pub use detect::{Api, Detection, Family, LimitKey, Target, detect, detect_as};
pub use estimate::{Basis, Calibration};
pub use live::{LiveAnswer, LiveScanner};
pub use relayed::Relayed;
pub use request::{Edits, Replacer, RequestBody, RequestFacts};
pub use response::{ResponseHead, UsageScanner};
pub use scan::{ExtraUsage, Scan, Trouble, UsageSource};
pub use strip::EventCutter;
