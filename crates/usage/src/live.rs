//! A connection over WebSocket: many answers, each with its usage, read as the frames stream by.
//!
//! Both directions are read, and neither is changed. An answer is given as soon as the provider
//! has ended it; the connection's end gives those that were cut. Time comes in as milliseconds,
//! whatever they count from. Memory does not grow with messages, nor with their number.

mod answers;
mod messages;
mod request;

use crate::detect::Target;
use crate::dialect::Field;
use crate::scan::Scan;
use answers::Answers;
use messages::Messages;

/// One answer of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LiveAnswer {
    /// What was read out of it.
    pub scan: Scan,
    /// The model that was asked for: in the path, or in a message of the client.
    pub model_requested: Option<String>,
    /// The service tier that was asked for.
    pub service_tier_requested: Option<String>,
    /// When it was asked for, or began where nobody asked.
    pub started_ms: i64,
    /// When its first content came.
    pub content_ms: Option<i64>,
    /// When it ended, or was cut.
    pub ended_ms: i64,
}

/// Reads usage out of both directions of one WebSocket connection.
///
/// The answers depend on the bytes and their order alone, never on where they were cut.
#[derive(Debug)]
pub struct LiveScanner {
    client: Messages<request::Field>,
    server: Messages<Field>,
    answers: Answers,
}

impl LiveScanner {
    /// A scanner for the connection that this request asked for and was granted.
    pub fn new(target: &Target) -> LiveScanner {
        let answers = Answers::new(target);
        LiveScanner {
            client: Messages::new(request::schema(target.api)),
            server: Messages::new(answers.schema()),
            answers,
        }
    }

    /// Takes the next bytes that the client sent.
    pub fn push_client(&mut self, chunk: &[u8], now_ms: i64) {
        self.answers.asked.now_ms = now_ms;
        self.client.push(chunk, &mut self.answers.asked);
    }

    /// Takes the next bytes that the server sent; gives the answers that ended with them.
    pub fn push_server(&mut self, chunk: &[u8], now_ms: i64) -> Vec<LiveAnswer> {
        self.answers.now_ms = now_ms;
        self.server.push(chunk, &mut self.answers);
        self.answers.take()
    }

    /// Whether a direction sent what cannot be read, so that the rest of it is passed over.
    pub fn is_broken(&self) -> bool {
        self.client.is_broken() || self.server.is_broken()
    }

    /// The connection is over: gives the answers that it cut.
    pub fn finish(&mut self, now_ms: i64) -> Vec<LiveAnswer> {
        self.answers.now_ms = now_ms;
        self.answers.cut();
        self.answers.take()
    }
}

#[cfg(test)]
mod tests;
