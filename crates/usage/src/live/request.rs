//! What the client of a connection asks for.
//!
//! <https://platform.openai.com/docs/api-reference/realtime-client-events> (`session.update`,
//! `response.create`), <https://developers.openai.com/api/docs/guides/websocket-mode>
//! (`response.create` has the fields of `POST /v1/responses`), <https://ai.google.dev/api/live>
//! (`setup` comes first and once; `clientContent` and `toolResponse` ask for a turn).

use super::messages::Taker;
use crate::detect::{Api, Target};
use crate::json::{Container, Node, Span, Value, Visitor};

/// A value in a message of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    /// What the message is.
    Kind,
    /// The model of the response that the message asks for.
    Model,
    /// The model of the whole session.
    SessionModel,
    /// The model that transcribes the session's input.
    Transcriber,
    Tier,
    /// An object whose presence asks for a turn.
    Asks,
}

const TRANSCRIPTION: Node<Field> = Node::object(&[("model", Node::leaf(Field::Transcriber))]);

static OPENAI: Node<Field> = Node::object(&[
    ("type", Node::leaf(Field::Kind)),
    ("model", Node::leaf(Field::Model)),
    ("service_tier", Node::leaf(Field::Tier)),
    (
        "session",
        Node::object(&[
            ("model", Node::leaf(Field::SessionModel)),
            (
                "audio",
                Node::object(&[("input", Node::object(&[("transcription", TRANSCRIPTION)]))]),
            ),
            ("input_audio_transcription", TRANSCRIPTION),
        ]),
    ),
]);

const SETUP: Node<Field> = Node::object(&[("model", Node::leaf(Field::SessionModel))]);
const ASKS: Node<Field> = Node::object(&[]).named(Field::Asks);

/// Protobuf's JSON takes either spelling of a key.
static GEMINI: Node<Field> = Node::object(&[
    ("setup", SETUP),
    ("clientContent", ASKS),
    ("client_content", ASKS),
    ("toolResponse", ASKS),
    ("tool_response", ASKS),
]);

pub(super) fn schema(api: Api) -> &'static Node<Field> {
    match api {
        Api::GeminiLive => &GEMINI,
        _ => &OPENAI,
    }
}

/// What was asked for so far.
#[derive(Debug, Default)]
pub(super) struct Asked {
    pub(super) now_ms: i64,
    /// The path's word, which messages cannot change.
    path_model: Option<String>,
    model: Option<String>,
    pub(super) transcriber: Option<String>,
    pub(super) tier: Option<String>,
    /// Where Vertex AI serves the model.
    pub(super) location: Option<String>,
    /// When a response was asked for that has not begun.
    pub(super) since_ms: Option<i64>,
    message: Message,
}

/// The message at hand.
#[derive(Debug, Default)]
struct Message {
    kind: Option<String>,
    model: Option<String>,
    tier: Option<String>,
    asks: bool,
}

impl Asked {
    pub(super) fn new(target: &Target) -> Asked {
        Asked {
            path_model: target.path_model.clone(),
            ..Asked::default()
        }
    }

    pub(super) fn model(&self) -> Option<&String> {
        self.path_model.as_ref().or(self.model.as_ref())
    }

    /// A session's model; Google's are resources (`models/…`,
    /// `projects/…/locations/…/publishers/google/models/…`).
    fn set_session_model(&mut self, name: &str) {
        let mut segments = name.split('/');
        if segments.any(|segment| segment == "locations") {
            self.location = segments.next().map(str::to_owned);
        }
        self.model = name.rsplit('/').next().map(str::to_owned);
    }
}

impl Visitor<Field> for Asked {
    fn scalar(&mut self, field: Field, value: Value<'_>, _: Span) {
        let Value::Text(text) = value else {
            return;
        };
        let text_of = || Some(text.to_owned());
        match field {
            Field::Kind => self.message.kind = text_of(),
            Field::Model => self.message.model = text_of(),
            Field::Tier => self.message.tier = text_of(),
            Field::Transcriber => self.transcriber = text_of(),
            Field::SessionModel => self.set_session_model(text),
            Field::Asks => {}
        }
    }

    fn open(&mut self, field: Field, _: Container, _: u64) {
        self.message.asks |= field == Field::Asks;
    }
}

impl Taker<Field> for Asked {
    fn end_message(&mut self, _: bool) {
        let message = std::mem::take(&mut self.message);
        let creates = message.kind.as_deref() == Some("response.create");
        if creates {
            self.model = message.model.or(self.model.take());
            self.tier = message.tier;
        }
        if creates || message.asks {
            self.since_ms.get_or_insert(self.now_ms);
        }
    }
}
