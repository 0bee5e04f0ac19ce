//! Events on their way to the aggregator: bounded in bytes, sent in batches, kept until
//! acknowledged.

mod line;

use std::collections::VecDeque;

use tollmesh_wire::{EventsReply, Node, VERSION};

use self::line::Line;

/// The most bytes of events that wait in one worker. At some 700 bytes an event that is about
/// 12,000 calls, minutes of a busy worker; the oldest beyond it are lost and counted as
/// `events_dropped`.
pub const QUEUE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// The most bytes of events in one batch: what a connection carries in a few milliseconds.
pub const BATCH_BYTES_MAX: usize = 1024 * 1024;
/// The most events in one batch, so that one commit of the aggregator stays short.
pub const BATCH_EVENTS_MAX: usize = 2_000;
/// The first wait after a batch was not acknowledged, milliseconds. It doubles with each failure.
const BACKOFF_MS_MIN: u64 = 250;
/// The longest wait between two attempts, milliseconds.
const BACKOFF_MS_MAX: u64 = 5_000;
/// How often the wait for an answer is doubled.
const PATIENCE_DOUBLINGS_MAX: u32 = 5;
/// The longest wait for an answer that no configuration asks for, milliseconds.
const PATIENCE_MS_MAX: u32 = 10_000;

/// What a batch begins with; it ends with the node, which may change between two attempts.
const OPENING: &[u8] = b"{\"v\":1,\"events\":[";

// The opening says the version in letters, so that a batch is put together and not formatted.
const _: () = assert!(VERSION == 1);

/// The events of one worker that the aggregator has not acknowledged.
#[derive(Debug)]
pub struct Queue {
    waiting: Line,
    batch: Batch,
    n_batch_events_max: usize,
    n_dropped: u64,
    /// How many of the dropped the aggregator knows of, and how many it was told with the batch on
    /// the way.
    n_dropped_known: u64,
    n_dropped_told: u64,
    backoff: Backoff,
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// Events now in the ledger.
    pub n_sent: u64,
    /// Events that will never be.
    pub n_rejected: u64,
    /// The batch will go again.
    pub resends: bool,
}

/// What the aggregator answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The batch is in the ledger, but for those it names.
    Acknowledged {
        /// Events in quarantine.
        n_rejected: u64,
    },
    /// The batch will never be taken as it is.
    Refused,
    /// The batch is too large to be taken in one.
    TooLarge {
        /// Whether the aggregator itself says so, and no proxy before it.
        is_final: bool,
    },
    /// It cannot be taken now.
    Away {
        /// When to come back, milliseconds, if the answer said.
        retry_after_ms: Option<u64>,
    },
}

/// Events taken out of the line and not yet acknowledged; they are sent until they are.
#[derive(Debug, Default)]
struct Batch {
    /// The events, with commas between them.
    text: Vec<u8>,
    /// The bytes of each that is left.
    lengths: VecDeque<usize>,
    /// Where the first that is left begins.
    start: usize,
    /// How many of them, from the first, are sent at a time.
    n_due: usize,
    is_on_the_way: bool,
}

#[derive(Debug)]
struct Backoff {
    n_failures: u32,
    not_before_ms: i64,
    chance: u64,
}

impl Queue {
    /// An empty queue; `seed` makes the pauses of many workers differ.
    pub fn new(seed: u64) -> Queue {
        Queue {
            waiting: Line::default(),
            batch: Batch::default(),
            n_batch_events_max: BATCH_EVENTS_MAX,
            n_dropped: 0,
            n_dropped_known: 0,
            n_dropped_told: 0,
            backoff: Backoff {
                n_failures: 0,
                not_before_ms: 0,
                chance: seed | 1,
            },
        }
    }

    /// Adds an event, as JSON; how many had to go for it. The batch on the way stays, since it
    /// may be in the ledger already.
    pub fn push(&mut self, event: &str) -> u64 {
        self.add(event.as_bytes())
    }

    fn add(&mut self, event: &[u8]) -> u64 {
        let n_bytes_max = QUEUE_BYTES_MAX.saturating_sub(self.batch.text.len());
        let mut n_dropped = 0;
        if event.len() > n_bytes_max {
            n_dropped += 1;
        } else {
            // Before the event is there, so that its room is that of those that go.
            while self.waiting.n_bytes() + event.len() > n_bytes_max {
                n_dropped += u64::from(self.waiting.drop_first());
            }
            self.waiting.push(event);
        }
        self.n_dropped += n_dropped;
        n_dropped
    }

    /// The body of the batch that is due, if one is: the unacknowledged one again, or the next.
    pub fn next(&mut self, node: &Node, now_ms: i64) -> Option<Vec<u8>> {
        if self.batch.is_on_the_way || self.backoff.is_waiting(now_ms) {
            return None;
        }
        if self.batch.lengths.is_empty() {
            self.batch.fill(&mut self.waiting, self.n_batch_events_max);
        }
        if self.batch.lengths.is_empty() {
            return None;
        }
        self.batch.n_due = self.batch.lengths.len().min(self.n_batch_events_max);
        self.batch.is_on_the_way = true;
        self.n_dropped_told = self.n_dropped;
        Some(self.batch.body(node, self.n_dropped))
    }

    /// How long the next batch may take, where `timeout_ms` is for one that nothing delays. A ledger
    /// that takes longer may have the batch by then: the same one would be late for ever.
    pub fn patience_ms(&self, timeout_ms: u32) -> u32 {
        let doubled =
            timeout_ms.saturating_mul(1 << self.backoff.n_failures.min(PATIENCE_DOUBLINGS_MAX));
        doubled.min(PATIENCE_MS_MAX.max(timeout_ms))
    }

    /// Takes the answer to the batch on the way.
    pub fn settle(&mut self, answer: &Answer, now_ms: i64) -> Settled {
        self.batch.is_on_the_way = false;
        let n_events = self.batch.n_due as u64;
        match answer {
            Answer::Acknowledged { n_rejected } => {
                let n_rejected = (*n_rejected).min(n_events);
                self.n_dropped_known = self.n_dropped_told;
                self.finish_batch();
                Settled {
                    n_sent: n_events - n_rejected,
                    n_rejected,
                    resends: false,
                }
            }
            Answer::TooLarge { .. } if n_events > 1 => {
                self.n_batch_events_max = (self.batch.n_due / 2).max(1);
                Settled {
                    resends: true,
                    ..Settled::default()
                }
            }
            Answer::Refused | Answer::TooLarge { is_final: true } => {
                self.finish_batch();
                Settled {
                    n_rejected: n_events,
                    ..Settled::default()
                }
            }
            Answer::TooLarge { is_final: false } => self.put_off(None, now_ms),
            Answer::Away { retry_after_ms } => self.put_off(*retry_after_ms, now_ms),
        }
    }

    fn put_off(&mut self, retry_after_ms: Option<u64>, now_ms: i64) -> Settled {
        self.backoff.fail(now_ms, retry_after_ms);
        Settled {
            resends: !self.batch.lengths.is_empty(),
            ..Settled::default()
        }
    }

    /// Whether nothing waits and nothing is on the way.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.batch.lengths.is_empty()
    }

    /// Gives everything up; how many events that were.
    pub fn abandon(&mut self) -> u64 {
        let n = (self.waiting.n_events() + self.batch.lengths.len()) as u64;
        self.waiting = Line::default();
        self.batch = Batch::default();
        self.n_dropped += n;
        n
    }

    /// Takes over what another queue had dropped and could not tell.
    pub fn inherit(&mut self, n_dropped: u64) {
        self.n_dropped = self.n_dropped.saturating_add(n_dropped);
    }

    /// Takes all events of another queue, behind its own; how many had to go for them. What is on the
    /// way from there is sent once more from here, under the same ids.
    pub fn take_over(&mut self, other: &mut Queue) -> u64 {
        let batch = std::mem::take(&mut other.batch);
        let mut n_dropped = 0;
        let mut start = batch.start;
        for length in batch.lengths {
            let event = batch.text.get(start..start + length);
            n_dropped += self.add(event.unwrap_or_default());
            start += length + 1;
        }
        let mut event = Vec::new();
        while !other.waiting.is_empty() {
            event.clear();
            other.waiting.take_first(&mut event);
            n_dropped += self.add(&event);
        }
        n_dropped
    }

    /// How many were dropped, by what is known here without the aggregator knowing.
    pub fn n_dropped_untold(&self) -> u64 {
        self.n_dropped.saturating_sub(self.n_dropped_known)
    }

    /// Lets the next batch go without a pause.
    pub fn hurry(&mut self) {
        self.backoff.not_before_ms = 0;
    }

    fn finish_batch(&mut self) {
        self.batch.finish();
        self.n_batch_events_max = (self.n_batch_events_max * 2).min(BATCH_EVENTS_MAX);
        self.backoff.n_failures = 0;
        self.backoff.not_before_ms = 0;
    }
}

impl Batch {
    /// Takes over what one batch may hold, one event at least.
    fn fill(&mut self, waiting: &mut Line, n_events_max: usize) {
        let (n_events, n_bytes) = waiting.first(n_events_max, BATCH_BYTES_MAX);
        *self = Batch::default();
        self.text.reserve_exact(n_bytes + n_events);
        for _ in 0..n_events {
            if !self.lengths.is_empty() {
                self.text.push(b',');
            }
            let length = waiting.take_first(&mut self.text);
            self.lengths.push_back(length);
        }
    }

    /// Drops the events that were due.
    fn finish(&mut self) {
        let done = self.lengths.drain(..self.n_due.min(self.lengths.len()));
        self.start += done.map(|length| length + 1).sum::<usize>();
        if self.lengths.is_empty() {
            *self = Batch::default();
        }
    }

    fn body(&mut self, node: &Node, n_dropped: u64) -> Vec<u8> {
        let node = Node {
            dropped_total: n_dropped,
            ..node.clone()
        };
        let node = serde_json::to_string(&node).unwrap_or_else(|_| "{}".to_owned());
        let due = self.lengths.iter().take(self.n_due);
        let end = self.start + due.map(|length| length + 1).sum::<usize>();
        let due = self.text.get(self.start..end.saturating_sub(1));
        let due = due.unwrap_or_default();
        let mut body = Vec::with_capacity(OPENING.len() + due.len() + node.len() + 16);
        body.extend_from_slice(OPENING);
        body.extend_from_slice(due);
        body.extend_from_slice(b"],\"node\":");
        body.extend_from_slice(node.as_bytes());
        body.push(b'}');
        body
    }
}

impl Backoff {
    /// Whether the pause is not over. The host's clock is the wall's: one that was set back would
    /// make a pause of hours, so a longer one than there are is taken for that.
    fn is_waiting(&self, now_ms: i64) -> bool {
        let left_ms = self.not_before_ms.saturating_sub(now_ms);
        (1..=BACKOFF_MS_MAX.cast_signed()).contains(&left_ms)
    }

    /// Half of the doubled pause is left to chance, so that workers do not come back together.
    fn fail(&mut self, now_ms: i64, retry_after_ms: Option<u64>) {
        let doubled = BACKOFF_MS_MIN << self.n_failures.min(10);
        let pause_ms = doubled.min(BACKOFF_MS_MAX);
        self.n_failures = self.n_failures.saturating_add(1);
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        let pause_ms = pause_ms / 2 + self.chance % (pause_ms / 2 + 1);
        let asked_ms = retry_after_ms.unwrap_or(0).min(BACKOFF_MS_MAX);
        let pause_ms = i64::try_from(pause_ms.max(asked_ms)).unwrap_or(0);
        self.not_before_ms = now_ms.saturating_add(pause_ms);
    }
}

impl Answer {
    /// Reads an answer; Envoy's own 503 and 504 stand for an aggregator that is not there.
    ///
    /// An answer of success that is not the aggregator's acknowledges nothing.
    pub fn read(status: Option<u16>, retry_after: Option<&str>, body: &[u8]) -> Answer {
        let retry_after_ms = retry_after
            .and_then(|text| text.trim().parse::<u64>().ok())
            .map(|seconds| seconds.saturating_mul(1_000));
        match status {
            Some(200) => match serde_json::from_slice::<EventsReply>(body) {
                Ok(reply) => Answer::Acknowledged {
                    n_rejected: reply.n_rejected(),
                },
                Err(_) => Answer::Away { retry_after_ms },
            },
            Some(status @ (400 | 422)) if is_problem(status, body) => Answer::Refused,
            Some(413) => Answer::TooLarge {
                is_final: is_problem(413, body),
            },
            _ => Answer::Away { retry_after_ms },
        }
    }
}

/// Whether the aggregator itself says so. Whatever else answers at its place has no say in what is
/// thrown away.
fn is_problem(status: u16, body: &[u8]) -> bool {
    let problem = serde_json::from_slice::<serde_json::Value>(body);
    problem.is_ok_and(|problem| {
        let said = problem.get("status").and_then(serde_json::Value::as_u64);
        said == Some(status.into()) && problem.get("detail").is_some()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tollmesh_wire::EventBatch;

    const ACK: Answer = Answer::Acknowledged { n_rejected: 0 };
    const AWAY: Answer = Answer::Away {
        retry_after_ms: None,
    };
    const TOO_LARGE: Answer = Answer::TooLarge { is_final: true };

    fn events(body: Option<Vec<u8>>) -> Vec<String> {
        let batch = EventBatch::parse(&body.expect("a batch is due")).unwrap();
        batch.events.iter().map(|e| e.get().to_owned()).collect()
    }

    fn next(queue: &mut Queue, now_ms: i64) -> Option<Vec<u8>> {
        queue.next(&Node::default(), now_ms)
    }

    #[test]
    fn one_batch_at_a_time_and_the_same_again_until_acknowledged() {
        let mut queue = Queue::new(1);
        assert!(next(&mut queue, 0).is_none());
        queue.push("1");
        queue.push("2");
        assert_eq!(events(next(&mut queue, 0)), ["1", "2"]);
        queue.push("3");
        assert!(next(&mut queue, 0).is_none(), "one is on the way");

        assert!(queue.settle(&AWAY, 0).resends);
        assert!(
            next(&mut queue, 0).is_none(),
            "not before the pause is over"
        );
        assert_eq!(events(next(&mut queue, 250)), ["1", "2"]);
        let settled = queue.settle(&Answer::Acknowledged { n_rejected: 1 }, 250);
        assert_eq!((settled.n_sent, settled.n_rejected), (1, 1));
        assert_eq!(events(next(&mut queue, 250)), ["3"]);
        queue.settle(&ACK, 250);
        assert!(queue.is_empty());
    }

    #[test]
    fn another_queue_is_taken_over_wholly_and_what_was_on_the_way_goes_again() {
        let mut left = Queue::new(1);
        left.n_batch_events_max = 2;
        for event in ["11", "22", "33", "44", "55"] {
            left.push(event);
        }
        next(&mut left, 0);
        left.n_batch_events_max = 1;
        left.settle(&TOO_LARGE, 0);
        next(&mut left, 0);
        left.settle(&ACK, 0);
        assert!(next(&mut left, 0).is_some(), "one is on the way");
        let mut heir = Queue::new(2);
        heir.push("0");
        assert_eq!(heir.take_over(&mut left), 0);
        assert_eq!(events(next(&mut heir, 0)), ["0", "22", "33", "44", "55"]);
        // Its answer comes late, or never.
        for answer in [ACK, AWAY, TOO_LARGE] {
            assert_eq!(left.settle(&answer, 0), Settled::default());
            assert!(left.is_empty());
        }
        let large = "x".repeat(QUEUE_BYTES_MAX / 4);
        for _ in 0..4 {
            heir.push(&large);
            left.push(&large);
        }
        let n_waiting = heir.waiting.n_events();
        let n_dropped = heir.take_over(&mut left);
        assert_eq!(
            n_dropped,
            n_waiting as u64 + 4 - heir.waiting.n_events() as u64
        );
        assert_eq!(heir.n_dropped_untold(), 1 + n_dropped);
        assert!(heir.waiting.n_bytes() <= QUEUE_BYTES_MAX);
    }

    #[test]
    fn pauses_grow_to_a_bound_and_respect_the_answer() {
        let mut queue = Queue::new(7);
        queue.push("1");
        let mut now_ms = 0;
        for floor_ms in [125, 250, 500, 1_000, 2_000, 2_500, 2_500] {
            assert!(next(&mut queue, now_ms).is_some());
            queue.settle(&AWAY, now_ms);
            assert!(next(&mut queue, now_ms + floor_ms - 1).is_none());
            now_ms += (floor_ms * 2).min(BACKOFF_MS_MAX as i64);
        }
        assert!(next(&mut queue, now_ms).is_some());
        let retry_after_ms = Some(60_000);
        queue.settle(&Answer::Away { retry_after_ms }, now_ms);
        assert!(next(&mut queue, now_ms + 4_999).is_none());
        assert!(next(&mut queue, now_ms + 5_000).is_some());
    }

    #[test]
    fn a_clock_that_is_set_back_makes_no_pause_longer() {
        let mut queue = Queue::new(1);
        queue.push("1");
        let hour_ms = 3_600_000;
        assert!(next(&mut queue, hour_ms).is_some());
        queue.settle(&AWAY, hour_ms);
        assert!(next(&mut queue, hour_ms).is_none());
        assert_eq!(events(next(&mut queue, 0)), ["1"]);
    }

    #[test]
    fn what_is_refused_does_not_wedge_the_rest() {
        let mut queue = Queue::new(1);
        for event in ["1", "2", "3"] {
            queue.push(event);
        }
        assert_eq!(events(next(&mut queue, 0)).len(), 3);
        assert!(queue.settle(&TOO_LARGE, 0).resends);
        assert_eq!(events(next(&mut queue, 0)), ["1"]);
        assert_eq!(queue.settle(&TOO_LARGE, 0).n_rejected, 1);
        assert_eq!(events(next(&mut queue, 0)), ["2", "3"]);
        assert_eq!(queue.settle(&Answer::Refused, 0).n_rejected, 2);
        assert!(queue.is_empty());
    }

    #[test]
    fn the_oldest_go_when_the_queue_is_full() {
        let mut queue = Queue::new(1);
        let event = |i: usize| format!("{i:0>1000}");
        let n = QUEUE_BYTES_MAX / 1_000 + 5;
        let dropped: u64 = (0..n).map(|i| queue.push(&event(i))).sum();
        assert_eq!(dropped, 5);
        let batch = events_raw(next(&mut queue, 0));
        assert!(batch.contains(&event(5)) && !batch.contains(&event(4)));
        assert!(batch.contains("\"dropped_total\":5"));
        assert!(batch.len() < BATCH_BYTES_MAX + 4_096);
        let left = queue.waiting.n_events() + queue.batch.lengths.len();
        assert_eq!(queue.abandon(), left as u64);
        assert!(queue.is_empty());
        assert_eq!(queue.n_dropped_untold(), n as u64);
    }

    #[test]
    fn no_more_memory_is_taken_than_is_bounded() {
        // Its bytes, and what is not full of the first block and the last.
        let n_bytes_max = QUEUE_BYTES_MAX + 2 * line::BLOCK_BYTES;
        let mut queue = Queue::new(1);
        let mut n_most = 0;
        for n in 0..60_000_usize {
            queue.push(&"x".repeat(1 + n * 7919 % 1_500));
            if n % 5_000 == 0 {
                next(&mut queue, 0);
                queue.settle(if n % 10_000 == 0 { &ACK } else { &TOO_LARGE }, 0);
            }
            let n_bytes = queue.waiting.capacity() + queue.batch.text.capacity();
            n_most = n_most.max(n_bytes);
        }
        assert!(n_most <= n_bytes_max, "{n_most}");
        assert!(n_most > QUEUE_BYTES_MAX / 2, "{n_most}");
        while next(&mut queue, 0).is_some() {
            queue.settle(&ACK, 0);
        }
        assert_eq!(queue.waiting.capacity() + queue.batch.text.capacity(), 0);
    }

    #[test]
    fn an_event_that_fits_nowhere_drives_no_other_out() {
        let mut queue = Queue::new(1);
        queue.push("1");
        next(&mut queue, 0).expect("is due");
        queue.push("2");
        assert_eq!(queue.push(&"x".repeat(QUEUE_BYTES_MAX)), 1);
        queue.push("3");
        queue.settle(&ACK, 0);
        assert_eq!(events(next(&mut queue, 0)), ["2", "3"]);
    }

    #[test]
    fn a_strangers_413_throws_nothing_away() {
        let foreign = Answer::TooLarge { is_final: false };
        let mut queue = Queue::new(1);
        for event in ["1", "2", "3"] {
            queue.push(event);
        }
        next(&mut queue, 0).expect("is due");
        assert!(queue.settle(&foreign, 0).resends);
        for now_ms in [0, 60_000, 120_000] {
            assert_eq!(events(next(&mut queue, now_ms)), ["1"]);
            let settled = queue.settle(&foreign, now_ms);
            assert!(settled.resends && settled.n_rejected == 0);
            assert!(next(&mut queue, now_ms).is_none(), "a pause");
        }
        assert_eq!(events(next(&mut queue, 200_000)), ["1"]);
        queue.settle(&ACK, 200_000);
        assert_eq!(events(next(&mut queue, 200_000)), ["2", "3"]);
    }

    #[test]
    fn what_was_dropped_is_told_once_a_batch_is_acknowledged() {
        let mut queue = Queue::new(1);
        queue.inherit(3);
        queue.push("1");
        let batch = events_raw(next(&mut queue, 0));
        assert!(batch.contains("\"dropped_total\":3"), "{batch}");
        queue.inherit(2);
        queue.settle(&AWAY, 0);
        assert_eq!(queue.n_dropped_untold(), 5);
        next(&mut queue, 60_000).expect("is due");
        queue.inherit(1);
        queue.settle(&ACK, 60_000);
        assert_eq!(queue.n_dropped_untold(), 1);
    }

    #[test]
    fn who_is_slow_is_waited_for_longer_each_time() {
        let mut queue = Queue::new(1);
        queue.push("1");
        let mut waits = Vec::new();
        for n in 0..7 {
            next(&mut queue, n * 60_000).expect("is due");
            waits.push(queue.patience_ms(1_000));
            queue.settle(&AWAY, n * 60_000);
        }
        assert_eq!(waits, [1_000, 2_000, 4_000, 8_000, 10_000, 10_000, 10_000]);
        assert_eq!(queue.patience_ms(20_000), 20_000);
        next(&mut queue, 1_000_000).expect("is due");
        queue.settle(&ACK, 1_000_000);
        assert_eq!(queue.patience_ms(1_000), 1_000);
    }

    fn events_raw(body: Option<Vec<u8>>) -> String {
        String::from_utf8(body.expect("a batch is due")).unwrap()
    }

    #[test]
    fn only_the_aggregators_word_acknowledges() {
        let rejected =
            br#"{"accepted":1,"duplicate":0,"rejected":[{"event_id":null,"reason":"x"}]}"#;
        for (status, retry_after, body, expected) in [
            (
                Some(200),
                None,
                &b"{\"accepted\":2,\"duplicate\":0}"[..],
                ACK,
            ),
            (Some(200), None, b"{}", AWAY),
            (
                Some(200),
                None,
                rejected,
                Answer::Acknowledged { n_rejected: 1 },
            ),
            (Some(200), None, b"hello", AWAY),
            (
                Some(400),
                None,
                br#"{"status":400,"title":"Bad Request","detail":"no \"v\""}"#,
                Answer::Refused,
            ),
            (Some(400), None, b"", AWAY),
            (Some(422), None, b"{\"error\":\"what?\"}", AWAY),
            (
                Some(413),
                None,
                b"<h1>413 Request Entity Too Large</h1>",
                Answer::TooLarge { is_final: false },
            ),
            (
                Some(413),
                None,
                br#"{"status":413,"title":"Payload Too Large","detail":"larger than 1 byte"}"#,
                TOO_LARGE,
            ),
            (
                Some(503),
                Some("2"),
                b"",
                Answer::Away {
                    retry_after_ms: Some(2_000),
                },
            ),
            (Some(504), None, b"", AWAY),
            (Some(404), None, b"", AWAY),
            (None, None, b"", AWAY),
        ] {
            assert_eq!(Answer::read(status, retry_after, body), expected);
        }
    }
}
