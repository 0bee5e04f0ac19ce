//! Export by OTLP: each call of the ledger as a span or a log record, and metrics over all of them.
//!
//! The ledger is the source and its own outbox: an [`Exporter`] goes through its rows in their
//! order, and notes how far a receiver has taken them. A receiver that is away for a day is told of
//! that day when it is back, and nothing else waits for it. What a receiver took although its answer
//! was lost comes again, under the same span id.
//!
//! Spans and metrics follow OpenTelemetry's conventions for generative AI
//! (<https://github.com/open-telemetry/semantic-conventions-genai>, all of them in development, read
//! 2026-11-22); what those have no name for is called `tollmesh.…`.

mod attributes;
mod error;
mod exporter;
mod meter;
mod names;
mod place;
mod post;
mod records;

pub use error::ExportError;
pub use exporter::{Exporter, Status};
pub use place::{CostAttribute, Endpoint, Settings, Signal, header};
