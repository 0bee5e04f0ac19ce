//! The harness: both artefacts between a scripted provider and scripted clients, in a real Envoy.
//!
//! Nothing here links the project's own crates. What a test knows about the filter it learns from
//! bytes that came out of Envoy; what it knows about the aggregator, from its sockets and its exit
//! code. [`Mesh`] is the door: it starts everything, hands out clients, and takes it all down.

pub mod aggregator;
pub mod alertmanager;
pub mod artifacts;
pub mod books;
pub mod browser;
pub mod chaos;
pub mod client;
pub mod crowd;
pub mod dialect;
pub mod envoy;
pub mod envoy_config;
pub mod exchange;
pub mod fact;
pub mod fault;
pub mod fixture;
pub mod hop;
pub mod http;
pub mod injection;
pub mod judge;
pub mod ledger;
pub mod literal;
pub mod manifests;
pub mod mesh;
pub mod monitoring;
pub mod otlp_receiver;
pub mod overlay;
pub mod ports;
pub mod postgres;
pub mod process;
pub mod prometheus;
pub mod promql;
pub mod provider;
pub mod recorded;
pub mod redis;
pub mod replay;
pub mod reply;
pub mod schema;
pub mod score;
pub mod shared;
pub mod small_disk;
pub mod tls;
pub mod usage;
pub mod vm_memory;
pub mod websocket;
pub mod week;

pub use books::Books;
pub use client::{Answer, Client, Ended};
pub use crowd::Crowd;
pub use exchange::{Exchange, Payload};
pub use judge::{Judge, Sentence};
pub use mesh::{Mesh, MeshBuilder};
pub use shared::Shared;
pub use usage::{Usage, usage};
