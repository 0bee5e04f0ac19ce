//! The answers of a connection: begun, told apart, ended, cut.

use super::LiveAnswer;
use super::messages::Taker;
use super::request::Asked;
use crate::detect::{Api, Target};
use crate::dialect::{Field, Reader, Turn};
use crate::json::{Container, Node, Passed, Span, Value, Visitor};
use crate::relayed::Relayed;
use crate::scan::{Scan, Trouble};
use crate::verdict::Known;

/// The most responses in progress that are told apart, at 300 bytes each. What begins beyond them
/// is metered when it ends, and leaves no trace if it is cut.
const OPEN_RESPONSES_MAX: usize = 16;

/// Reads what the server sends, and gives the answers in it.
#[derive(Debug)]
pub(super) struct Answers {
    pub(super) now_ms: i64,
    pub(super) asked: Asked,
    target: Target,
    reader: Reader,
    open: Vec<Open>,
    /// The model that the server says the session has.
    session_model: Option<String>,
    ended: Vec<LiveAnswer>,
}

/// A response in progress.
#[derive(Debug)]
struct Open {
    id: Option<String>,
    started_ms: i64,
    content_ms: Option<i64>,
}

impl Answers {
    pub(super) fn new(target: &Target) -> Answers {
        Answers {
            now_ms: 0,
            asked: Asked::new(target),
            target: target.clone(),
            reader: Reader::new(target),
            open: Vec::new(),
            session_model: None,
            ended: Vec::new(),
        }
    }

    pub(super) fn schema(&self) -> &'static Node<Field> {
        self.reader.schema()
    }

    /// The answers since the last time.
    pub(super) fn take(&mut self) -> Vec<LiveAnswer> {
        std::mem::take(&mut self.ended)
    }

    /// The connection is over: what is in progress was cut, or lacks its usage only.
    pub(super) fn cut(&mut self) {
        for open in std::mem::take(&mut self.open) {
            let mut scan = self.scan(self.reader.findings.is_terminated);
            scan.response_id = scan.response_id.or(open.id);
            self.give(scan, open.started_ms, open.content_ms);
        }
    }

    /// The response at hand goes on, or may begin.
    fn go_on(&mut self, may_begin: bool) {
        let has_content = self.reader.findings.has_content;
        let now_ms = self.now_ms;
        if let Some(open) = self.find().and_then(|at| self.open.get_mut(at)) {
            if has_content {
                open.content_ms.get_or_insert(now_ms);
            }
        } else if may_begin && self.open.len() < OPEN_RESPONSES_MAX {
            let started_ms = self.asked.since_ms.take().unwrap_or(now_ms);
            self.open.push(Open {
                id: self.reader.findings.response_id.clone(),
                started_ms,
                content_ms: has_content.then_some(now_ms),
            });
        }
    }

    /// The response that the message at hand belongs to; without an id it is the last one's.
    fn find(&self) -> Option<usize> {
        match &self.reader.findings.response_id {
            Some(id) => self
                .open
                .iter()
                .position(|open| open.id.as_ref() == Some(id)),
            None => self.open.len().checked_sub(1),
        }
    }

    /// The response at hand has ended.
    fn end(&mut self) {
        let open = self.find().map(|at| self.open.swap_remove(at));
        let asked_ms = self.asked.since_ms.take_if(|_| open.is_none());
        let is_error = self.reader.findings.is_error && !self.reader.findings.has_usage;
        if is_error && open.is_none() && asked_ms.is_none() {
            // A word about the connection, not about a response.
            self.reader = Reader::new(&self.target);
            return;
        }
        let has_content = self.reader.findings.has_content;
        let content_ms = has_content.then_some(self.now_ms);
        let (started_ms, content_ms) = match open {
            Some(open) => (open.started_ms, open.content_ms.or(content_ms)),
            None => (asked_ms.unwrap_or(self.now_ms), content_ms),
        };
        let scan = self.scan(true);
        self.give(scan, started_ms, content_ms);
    }

    /// What the reader found, as the scan of one answer; it begins anew after that.
    fn scan(&mut self, is_complete: bool) -> Scan {
        let relayed = Relayed {
            is_report_final: is_complete,
            ..self.reader.findings.relayed
        };
        let mut scan = self.reader.scan(Known {
            is_billable: self.target.billable,
            is_retrieval: self.target.is_retrieval,
            is_told_later: false,
            is_error_status: false,
            complete: Some(is_complete),
            n_spoken: None,
            is_stream: true,
            relayed,
        });
        self.reader = Reader::new(&self.target);
        if let Some(location) = &self.asked.location {
            let context = &mut scan.pricing_context;
            context.insert("vertex_location".to_owned(), location.clone());
        }
        scan
    }

    fn give(&mut self, mut scan: Scan, started_ms: i64, content_ms: Option<i64>) {
        scan.model = scan.model.or_else(|| self.session_model.clone());
        self.ended.push(LiveAnswer {
            scan,
            model_requested: self.asked.model().cloned(),
            service_tier_requested: self.asked.tier.clone(),
            started_ms,
            content_ms,
            ended_ms: self.now_ms,
        });
    }

    /// A transcription of input has ended: another model's work, beside the responses.
    fn transcribed(&mut self) {
        let transcriber = self.asked.transcriber.clone();
        let scan = self.scan(true);
        self.ended.push(LiveAnswer {
            scan: Scan {
                model: transcriber.clone(),
                ..scan
            },
            model_requested: transcriber,
            service_tier_requested: None,
            started_ms: self.now_ms,
            content_ms: None,
            ended_ms: self.now_ms,
        });
    }

    /// What a message of a realtime session says is over with it, but for the session's models.
    fn end_realtime_message(&mut self) {
        if let Some(model) = self.reader.findings.model.take() {
            self.session_model = Some(model);
        }
        if let Some(transcriber) = self.reader.take_transcriber() {
            self.asked.transcriber = Some(transcriber);
        }
        self.reader = Reader::new(&self.target);
    }
}

impl Taker<Field> for Answers {
    fn end_message(&mut self, is_whole: bool) {
        if !is_whole {
            self.reader.findings.trouble(Trouble::Malformed);
        }
        match self.reader.turn() {
            Turn::Ended => self.end(),
            Turn::Transcribed => self.transcribed(),
            Turn::Begins => self.go_on(true),
            Turn::GoesOn => self.go_on(false),
            Turn::Aside => {}
        }
        if self.target.api == Api::OpenAiRealtime {
            self.end_realtime_message();
        }
    }
}

impl Visitor<Field> for Answers {
    fn scalar(&mut self, field: Field, value: Value<'_>, span: Span) {
        self.reader.scalar(field, value, span);
    }

    fn open(&mut self, field: Field, container: Container, at: u64) {
        self.reader.open(field, container, at);
    }

    fn close(&mut self, field: Field, container: Container, at: u64, is_empty: bool) {
        self.reader.close(field, container, at, is_empty);
    }

    fn text(&mut self, field: Field, n_bytes: usize) {
        self.reader.text(field, n_bytes);
    }

    fn passed(&mut self, passed: Passed, span: Span) {
        self.reader.passed(passed, span);
    }

    fn document(&mut self) {
        self.reader.document();
    }
}
