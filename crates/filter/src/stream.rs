//! One HTTP stream: carries the host's callbacks to its session, and the effects back.

use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::{Action, BufferType, MapType};
use tollmesh_wire::Timestamp;

use crate::chunk::{Buffer, Chunk};
use crate::counters::Counter;
use crate::edit::HeaderEdit;
use crate::headers::{Headers, serialise};
use crate::host::{self, BodyBuffer};
use crate::session::{Denial, Effects, Ending, Input, Session, Site};
use crate::worker::{CallAnswer, StreamClock, Worker};

/// The longest decision that is read, bytes: names, a limit, a reason.
const DECISION_BYTES_MAX: usize = 64 * 1024;

/// The host's side of one [`Session`].
pub struct Stream {
    worker: Rc<Worker>,
    session: Session,
    /// What its call goes by to its end; absent where the configuration could not be used, so that
    /// nothing is looked at.
    site: Option<Rc<Site>>,
    clock: StreamClock,
}

impl Stream {
    /// A stream of which nothing is known yet.
    pub fn new(worker: Rc<Worker>) -> Stream {
        let site = worker.site.borrow().clone();
        Stream {
            worker,
            session: Session::default(),
            site,
            clock: StreamClock::default(),
        }
    }

    fn step(&mut self, input: Input<'_>) -> Effects {
        let Some(site) = &self.site else {
            return Effects::default();
        };
        let now = match self.session.needs_time(&input) {
            true => self.clock.now(),
            false => Timestamp::default(),
        };
        let is_connection = self.session.is_upgraded();
        let mut effects = self.session.step(site, input, now);
        self.worker.keep(&mut effects, is_connection);
        effects
    }

    fn headers(&self, map: MapType) -> Option<Vec<u8>> {
        let serialised = host::header_map(map);
        if serialised.is_err() {
            self.worker.counters.count(Counter::Faults);
        }
        serialised.ok()
    }

    fn head(&mut self, map: MapType, input: Input<'_>) -> Action {
        let effects = self.step(input);
        if effects.denial.is_none() {
            self.edit(map, &effects.edits);
        }
        self.pass(effects)
    }

    /// Whether what is at hand may pass: not where the call is refused, nor while the aggregator is
    /// asked.
    fn pass(&mut self, mut effects: Effects) -> Action {
        if let Some(question) = effects.asks.take() {
            match self.ask(&question) {
                Ok(_) => return Action::Pause,
                Err(_) => effects = self.step(Input::Admission(None)),
            }
        }
        match &effects.denial {
            Some(denial) => self.deny(denial),
            None => Action::Continue,
        }
    }

    /// The answer comes to this context, while it lives.
    fn ask(&self, question: &str) -> Result<u32, host::Refused> {
        let site = self.site.as_ref();
        let timeout_ms = site.map_or(0, |site| site.config.admission.timeout_ms);
        let question = question.as_bytes();
        self.worker.post("/v1/reservations", question, timeout_ms)
    }

    /// Shows the session a chunk, slice by slice; the last slice has the body's end, if it has come.
    fn body(
        &mut self,
        buffer: BufferType,
        may_edit: bool,
        size: usize,
        ends: bool,
        input: impl for<'a> Fn(&'a [u8], bool) -> Input<'a>,
    ) -> Action {
        if !self.session.reads_bodies() {
            return Action::Continue;
        }
        let mut chunk = Chunk::new(BodyBuffer(buffer), size, may_edit);
        let mut action = Action::Continue;
        loop {
            let Ok(slice) = chunk.take() else {
                self.worker.counters.count(Counter::Faults);
                self.worker.check(chunk.pass_rest());
                return action;
            };
            let effects = self.step(input(&slice, ends && chunk.is_read()));
            if let Err(refused) = chunk.pass(&slice, effects.body.as_deref()) {
                self.worker.check(Err(refused));
                self.worker.check(chunk.pass_rest());
            }
            if self.pass(effects) == Action::Pause {
                action = Action::Pause;
            }
            if chunk.is_read() {
                return action;
            }
        }
    }

    /// What becomes of a request of which everything was seen, or of which nothing may pass.
    fn settled(&self) -> Option<Action> {
        if self.session.holds_request() || self.session.is_refused() {
            return Some(Action::Pause);
        }
        self.session.is_past_request().then_some(Action::Continue)
    }

    fn edit(&self, map: MapType, edits: &[HeaderEdit]) {
        for edit in edits {
            self.worker.check(match edit {
                HeaderEdit::Remove(name) => host::remove_header(map, name),
                HeaderEdit::Set(name, value) => host::set_header(map, name, value),
            });
        }
    }

    /// Asks the host what it knows about the call by now.
    fn with_ending(&mut self, step: impl FnOnce(&mut Stream, Ending<'_>) -> Effects) {
        let number = |path| host::property(path).ok().and_then(little_endian);
        let principal = principal();
        let attempts = number("upstream\0request_attempt_count").unwrap_or(0);
        let response_flags = match self.session.ended_well() {
            true => 0,
            false => number("response\0flags").unwrap_or(0),
        };
        let ending = Ending {
            response_flags,
            attempts: u32::try_from(attempts).unwrap_or(u32::MAX),
            principal: principal.as_deref(),
        };
        step(self, ending);
    }

    /// The request stops here, since its answer is given already.
    fn deny(&self, denial: &Denial) -> Action {
        let headers: Vec<(&str, &str)> = denial
            .headers
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let body = denial.body.as_bytes();
        let answered = host::respond(denial.status, denial.details, &serialise(&headers), body);
        let action = match answered {
            Ok(()) => Action::Pause,
            Err(_) => Action::Continue,
        };
        self.worker.check(answered);
        action
    }
}

impl Context for Stream {
    /// The aggregator has said whether the call may go ahead; nothing else is asked for a stream.
    fn on_http_call_response(&mut self, _: u32, _: usize, size: usize, _: usize) {
        let answer = CallAnswer::read(size, DECISION_BYTES_MAX);
        let status = answer.status();
        let told = status.map(|status| (status, answer.body.as_slice()));
        let effects = self.step(Input::Admission(told));
        if effects.resumes {
            self.worker.check(host::resume_request());
        }
        if let Some(denial) = &effects.denial
            && matches!(self.deny(denial), Action::Continue)
        {
            // An answer that cannot be given must not leave the request waiting for ever.
            self.worker.check(host::resume_request());
        }
    }
}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _: usize, ends: bool) -> Action {
        let Some(serialised) = self.headers(MapType::HttpRequestHeaders) else {
            return Action::Continue;
        };
        let site = self.site.as_ref();
        let asks_who_calls = site.is_some_and(|site| site.asks_who_calls());
        let peer = asks_who_calls.then(principal).flatten();
        let input = Input::RequestHead {
            headers: &Headers::parse(&serialised),
            peer: peer.as_deref(),
            ends,
        };
        self.head(MapType::HttpRequestHeaders, input)
    }

    fn on_http_request_body(&mut self, size: usize, ends: bool) -> Action {
        if let Some(action) = self.settled() {
            return action;
        }
        let buffer = BufferType::HttpRequestBody;
        let may_edit = self.session.may_edit_request();
        self.body(buffer, may_edit, size, ends, |chunk, ends| {
            Input::RequestBody { chunk, ends }
        })
    }

    fn on_http_request_trailers(&mut self, _: usize) -> Action {
        if let Some(action) = self.settled() {
            return action;
        }
        if !self.session.reads_bodies() {
            return Action::Continue;
        }
        let effects = self.step(Input::RequestTrailers);
        if let Some(withheld) = effects.body.as_deref().filter(|bytes| !bytes.is_empty()) {
            let body = BodyBuffer(BufferType::HttpRequestBody);
            self.worker.check(body.append(withheld));
        }
        self.pass(effects)
    }

    fn on_http_response_headers(&mut self, _: usize, ends: bool) -> Action {
        if !self.session.is_metered() {
            return Action::Continue;
        }
        let Some(serialised) = self.headers(MapType::HttpResponseHeaders) else {
            return Action::Continue;
        };
        let headers = Headers::parse(&serialised);
        let is_from_mesh = self.session.asks_who_answers(&headers) && is_from_mesh();
        let input = Input::ResponseHead {
            headers: &headers,
            is_from_mesh,
            ends,
        };
        let action = self.head(MapType::HttpResponseHeaders, input);
        if self.session.is_upgraded() {
            self.with_ending(|stream, known| stream.step(Input::Upgraded(known)));
        }
        action
    }

    fn on_http_response_body(&mut self, size: usize, ends: bool) -> Action {
        let buffer = BufferType::HttpResponseBody;
        let may_edit = self.session.may_edit_response();
        self.body(buffer, may_edit, size, ends, |chunk, ends| {
            Input::ResponseBody { chunk, ends }
        })
    }

    fn on_http_response_trailers(&mut self, _: usize) -> Action {
        if self.session.is_metered() {
            self.step(Input::ResponseTrailers);
        }
        Action::Continue
    }

    fn on_log(&mut self) {
        if !self.session.is_metered() {
            return;
        }
        self.with_ending(|stream, ending| stream.step(Input::End(ending)));
    }
}

/// The peer's identity by its certificate, where it shows one.
///
/// A waypoint of Istio ends that TLS on an outer listener and hands the identity on as filter state,
/// which Envoy's own configuration alone can set (`ConnectAuthorityNetworkFilter`,
/// <https://github.com/istio/istio/blob/master/pilot/pkg/xds/filters/filters.go>).
fn principal() -> Option<String> {
    let paths = [
        "connection\0uri_san_peer_certificate",
        "filter_state\0io.istio.peer_principal",
    ];
    paths.into_iter().find_map(|path| {
        let uri = String::from_utf8(host::property(path).ok()?).ok()?;
        Some(uri).filter(|uri| !uri.is_empty())
    })
}

/// Whether the answer comes from another proxy of the mesh, as far as the connection shows it.
///
/// Such a proxy shows a SPIFFE identity, or nothing at all where the network is trusted and spoken to
/// in plain text. A provider shows a certificate for its name: those that the public trusts have no
/// URI in them (Baseline Requirements of the CA/Browser Forum, 7.1.2.7.12, allow names and addresses
/// alone). Properties: `upstream.*` of
/// <https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/advanced/attributes>.
fn is_from_mesh() -> bool {
    let text = |path| {
        let value = host::property(path).unwrap_or_default();
        String::from_utf8(value).unwrap_or_default()
    };
    let identity = text("upstream\0uri_san_peer_certificate");
    match identity.is_empty() {
        true => text("upstream\0tls_version").is_empty(),
        false => identity.starts_with("spiffe://"),
    }
}

/// Properties that are numbers come as eight bytes, little endian.
fn little_endian(bytes: Vec<u8>) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}
