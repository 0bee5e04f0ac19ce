//! What filter and aggregator say to each other: versioned JSON over a local HTTP connection.
//!
//! Unknown fields are ignored, since the peer may be newer; unknown versions are refused by name.

pub mod decision;
pub mod event;
pub mod matching;
pub mod plugin;
pub mod time;

pub use decision::{Applied, Decision, DecisionTable, Denied, ReservationRequest};
pub use event::{Event, EventBatch, EventsReply, ExtraUsage, Node, Outcome, Rejected, Source};
pub use matching::{Match, ModelNames, Subject};
pub use plugin::PluginConfig;
pub use time::Timestamp;

/// The version of everything in this crate.
pub const VERSION: u32 = 1;

/// Why a message could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The message is of a version that this side does not speak.
    #[error(
        "wire version {got} is not spoken here (this side speaks {VERSION}); \
             run filter and aggregator of the same release"
    )]
    Version {
        /// The version that the message carries.
        got: u64,
    },
    /// A batch has more events than are taken at once.
    #[error("more than {max} events; send them in smaller batches")]
    TooMany {
        /// How many are taken at once.
        max: usize,
    },
    /// The message is not what its version promises.
    #[error("not a message of wire version {VERSION}")]
    Shape(#[from] serde_json::Error),
}
