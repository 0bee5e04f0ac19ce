//! Calls whose events came before what was asked for them: nothing is reserved for these any more.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

/// How many are remembered, some 100 bytes each. A question is behind its call's event by no more
/// than this process falls behind its sockets, so the newest are those that matter.
const ENDED_MAX: usize = 16_384;

/// The newest calls that ended with nothing reserved for them.
///
/// A filter that gave up waiting sends the event at once, by another connection than the question:
/// under load the event may be read first. Reserved then, it would stay held for as long as the
/// longest call may take.
#[derive(Debug, Default)]
pub struct Ended {
    known: HashSet<Arc<str>>,
    order: VecDeque<Arc<str>>,
}

impl Ended {
    /// Notes a call by its event.
    pub fn note(&mut self, event_id: &str) {
        let event_id: Arc<str> = event_id.into();
        if !self.known.insert(Arc::clone(&event_id)) {
            return;
        }
        self.order.push_back(event_id);
        if self.order.len() > ENDED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    /// Whether that call is one of them.
    pub fn has(&self, event_id: &str) -> bool {
        self.known.contains(event_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_remembered() {
        let mut ended = Ended::default();
        ended.note("first");
        ended.note("first");
        for n in 1..ENDED_MAX {
            ended.note(&n.to_string());
        }
        assert!(ended.has("first") && ended.has("1") && !ended.has("other"));
        ended.note("last");
        assert!(!ended.has("first") && ended.has("1") && ended.has("last"));
        assert_eq!(ended.known.len(), ended.order.len());
    }
}
