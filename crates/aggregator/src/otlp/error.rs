//! Why something was not exported.

use std::io;
use std::path::PathBuf;

use crate::ledger::{AppendError, QueryError};

/// What kept a request from being taken.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// No connection.
    #[error("cannot connect to {server}: {source}")]
    Connect {
        /// Host and port.
        server: String,
        /// Why.
        source: io::Error,
    },
    /// The connection broke before the answer was whole.
    #[error("no answer from {server}: {source}")]
    Broken {
        /// Host and port.
        server: String,
        /// Why.
        source: hyper::Error,
    },
    /// Nothing came for long.
    #[error("no answer from {server} within {seconds} s")]
    Silent {
        /// Host and port.
        server: String,
        /// How long was waited.
        seconds: u64,
    },
    /// An answer that is no success.
    #[error("{url} answers {status}{detail}")]
    Refused {
        /// What was posted to.
        url: String,
        /// The HTTP status.
        status: u16,
        /// The begin of the answer's text after a colon; empty where it has none.
        detail: String,
        /// For how long the receiver wants to be left alone.
        retry_after_seconds: Option<u64>,
    },
    /// A request that cannot be written as HTTP.
    #[error("a request to {url} cannot be made: {source}")]
    Request {
        /// What was to be posted to.
        url: String,
        /// Why.
        source: hyper::http::Error,
    },
    /// `otlp.headers_file` cannot be used.
    #[error("otlp.headers_file: {}: {what}", path.display())]
    Headers {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// `otlp.ca_file` cannot be used, or TLS cannot be set up.
    #[error("otlp.ca_file: {what}")]
    Certificates {
        /// What is wrong with it.
        what: String,
    },
    /// The ledger cannot be read.
    #[error("the ledger cannot be read: {0}")]
    Read(#[from] QueryError),
    /// What was exported cannot be noted.
    #[error("the ledger cannot note what was exported: {0}")]
    Note(#[from] AppendError),
    /// A reading of the ledger panicked, or was cut off by the end of the process.
    #[error("the reading of the ledger was cut off")]
    Interrupted,
}

impl ExportError {
    /// Whether the receiver minds what was sent, so that sending less of it may help, and sending
    /// the same again does not. OTLP's text has these not be retried:
    /// <https://opentelemetry.io/docs/specs/otlp/#failures-1>; what a wrong key, path or
    /// permission is answered with (401, 403, 404, …) is an operator's to repair, so that calls wait.
    pub fn blames_content(&self) -> bool {
        matches!(
            self,
            ExportError::Refused {
                status: 400 | 413 | 422,
                ..
            }
        )
    }

    /// For how long the receiver wants to be left alone, where it says so.
    pub fn retry_after_seconds(&self) -> Option<u64> {
        match self {
            ExportError::Refused {
                retry_after_seconds,
                ..
            } => *retry_after_seconds,
            _ => None,
        }
    }
}
