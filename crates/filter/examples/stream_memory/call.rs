//! One call through the filter's session, its heap counted.

use std::io::Write;

use tollmesh_filter::headers::Headers;
use tollmesh_filter::ids::EventIds;
use tollmesh_filter::session::{Ending, Input, Session, Site};
use tollmesh_wire::{PluginConfig, Source, Timestamp};

use crate::encoding::Encoding;
use crate::framing::{Framing, INPUT, OUTPUT};
use crate::heap;

/// What comes at a time; odd, so that pieces end anywhere in an event.
const CHUNK_BYTES: usize = 13_331;

/// A call whose answer is on its way; what is written to it is the answer's body, as encoded.
pub struct Call {
    site: Site,
    session: Session,
}

/// What one call took.
pub struct Figure {
    /// The most that it held at a time.
    pub peak_bytes: u64,
    /// Whether its event says just what the body reported, and nothing was held back for good.
    pub verdict: Result<(), String>,
}

impl Call {
    /// Sends the request and the head of the answer.
    pub fn begin(framing: &Framing, encoding: Encoding) -> Call {
        let config = br#"{"aggregator":{"cluster":"tollmesh"},"accept_encoding":"keep"}"#;
        let site = Site::new(
            PluginConfig::parse(config).expect("it is a configuration"),
            EventIds::named("0123456789abcdef".to_owned()),
            Source::default(),
        );
        let mut call = Call {
            site,
            session: Session::default(),
        };
        heap::reset();
        let headers = pairs(&[
            (":authority", framing.host),
            (":path", framing.path),
            (":method", "POST"),
            ("content-type", "application/json"),
            ("x-request-id", "0f5cbb0e-5b0a-4f0e-9d8e-3a3a0f0e9d8e"),
            (
                "traceparent",
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            ),
            ("x-llm-tag-team", "checkout"),
            ("x-llm-tag-feature", "summary"),
        ]);
        let (headers, ends) = (&headers, false);
        call.step(Input::RequestHead {
            headers,
            peer: None,
            ends,
        });
        let chunk = framing.ask.as_bytes();
        call.step(Input::RequestBody { chunk, ends: true });
        let mut head = vec![(":status", "200"), ("content-type", framing.content_type)];
        head.extend(encoding.header().map(|name| ("content-encoding", name)));
        let headers = &pairs(&head);
        let is_from_mesh = false;
        call.step(Input::ResponseHead {
            headers,
            is_from_mesh,
            ends,
        });
        call
    }

    /// Ends the answer and the call.
    pub fn end(mut self) -> Figure {
        let (chunk, ends) = (&[][..], true);
        self.step(Input::ResponseBody { chunk, ends });
        let ending = Ending {
            attempts: 1,
            ..Ending::default()
        };
        let events = heap::counted(|| {
            let now = Timestamp::from_unix_ms(1_795_320_001_000);
            let effects = self.session.step(&self.site, Input::End(ending), now);
            effects.events
        });
        let verdict = judged(&events);
        heap::counted(|| drop(events));
        Figure {
            peak_bytes: heap::peak_bytes(),
            verdict,
        }
    }

    /// One input; what it gives is dropped, as the proxy has done when it gets on.
    fn step(&mut self, input: Input<'_>) {
        let now = Timestamp::from_unix_ms(1_795_320_000_000);
        heap::counted(|| drop(self.session.step(&self.site, input, now)));
    }
}

impl Write for Call {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        for chunk in bytes.chunks(CHUNK_BYTES) {
            let ends = false;
            self.step(Input::ResponseBody { chunk, ends });
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn pairs<'a>(head: &[(&'a str, &'a str)]) -> Headers<'a> {
    let pairs = head.iter();
    pairs.map(|(n, v)| (n.as_bytes(), v.as_bytes())).collect()
}

fn judged(events: &[String]) -> Result<(), String> {
    let [event] = events else {
        return Err(format!("{} events", events.len()));
    };
    let said: serde_json::Value = serde_json::from_str(event).map_err(|e| e.to_string())?;
    let usage = &said["usage"];
    let is_right = usage["input"] == INPUT
        && usage["output"] == OUTPUT
        && said["usage_source"] == "reported"
        && said["trouble"].is_null();
    match is_right {
        true => Ok(()),
        false => Err(format!(
            "not read to the token: {usage}, {} {}",
            said["usage_source"], said["trouble"]
        )),
    }
}
