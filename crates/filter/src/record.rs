//! What an access log shows of a WebSocket connection: its events, one a line.

/// The most of one connection's record, in bytes: about 300 events. A line of an access log is
/// written whole from Envoy's memory, and written into JSON it grows by half at most.
pub const RECORD_BYTES_MAX: usize = 256 * 1024;

/// Adds an event to the record of those before it. Where there is no room the oldest make room; how
/// many did. No event has a line end in it: JSON writes those as `\n`.
pub fn append(record: &mut Vec<u8>, event: &str) -> u64 {
    let room = RECORD_BYTES_MAX.saturating_sub(event.len() + 1);
    let mut n_fallen = 0;
    while record.len() > room {
        let line = record.iter().position(|byte| *byte == b'\n');
        record.drain(..line.map_or(record.len(), |at| at + 1));
        n_fallen += 1;
    }
    if !record.is_empty() {
        record.push(b'\n');
    }
    record.extend_from_slice(event.as_bytes());
    n_fallen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_events_stay() {
        let mut record = Vec::new();
        assert_eq!(append(&mut record, "{1}"), 0);
        assert_eq!(append(&mut record, "{2}"), 0);
        assert_eq!(record, b"{1}\n{2}");
        let long = "x".repeat(RECORD_BYTES_MAX - 4);
        assert_eq!(append(&mut record, &long), 1);
        assert_eq!(record, format!("{{2}}\n{long}").as_bytes());
        assert_eq!(append(&mut record, "{4}"), 1);
        assert_eq!(record, format!("{long}\n{{4}}").as_bytes());
        let longer = "x".repeat(RECORD_BYTES_MAX + 1);
        assert_eq!(append(&mut record, &longer), 2);
        assert_eq!(record.len(), longer.len());
    }
}
