//! Cuts the usage event that we asked for out of a stream, and nothing else.

/// Copies an SSE body, leaving out the extra usage event of a chat completion.
///
/// Holds back at most one incomplete event of at most [`EventCutter::HELD_BYTES_MAX`] bytes.
#[derive(Default)]
pub struct EventCutter {}

impl EventCutter {
    /// The most bytes ever held back; a longer event is passed on as it is.
    pub const HELD_BYTES_MAX: usize = 4096;

    /// A cutter at the start of a body.
    pub fn new() -> EventCutter {
        EventCutter::default()
    }

    /// Takes the next bytes; `Some` are the bytes to send in their place. At `end_of_stream`
    /// nothing stays held.
    pub fn push(&mut self, chunk: &[u8], end_of_stream: bool) -> Option<Vec<u8>> {
        let _ = (chunk, end_of_stream);
        None
    }
}
