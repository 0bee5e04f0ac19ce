//! A request body on its way out: read for what metering needs, edited only by splicing.
//!
//! Memory does not grow with the body. Nothing is edited but JSON that is well-formed up to the
//! place of the edit; what a body holds behind that place is not known when it is made, so a body
//! that breaks later keeps the edits before the breach (its provider refuses it either way). The
//! rules of the edits stand in `request/read.rs`.

mod characters;
mod encoded;
mod form;
mod media;
mod multipart;
mod read;
mod splice;
mod write;

use std::fmt;
use std::rc::Rc;

use crate::decode::DecoderPool;
use crate::detect::Target;
use crate::json::Scanner;
use crate::scan::Trouble;
use encoded::Encoded;
use form::{Field, Form};
use media::MediaGauge;
use multipart::Multipart;
use read::{Progress, Reader, Wishes};
use splice::Splicer;

/// What may be changed in a request body. The default changes nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edits {
    /// Ask for the usage event of a stream (`stream_options.include_usage`), where the API has
    /// such an option.
    pub include_usage: bool,
    /// Replace the model, where the body names one.
    pub model: Option<String>,
    /// Replace the model by what this has for the one that the body names (a budget's downgrade).
    pub replacer: Option<Replacer>,
    /// Lower the output limit to this many tokens (a budget's cap), or set it where there is none.
    pub max_output_tokens: Option<u64>,
}

/// Says which model to ask for in the place of one, if in any.
#[derive(Clone)]
pub struct Replacer(Rc<Replace>);

type Replace = dyn Fn(&str) -> Option<String>;

impl Replacer {
    /// One that asks that function, by the name that a body has.
    pub fn new(replace: impl Fn(&str) -> Option<String> + 'static) -> Replacer {
        Replacer(Rc::new(replace))
    }

    fn model_for(&self, asked: &str) -> Option<String> {
        self.0(asked)
    }
}

impl fmt::Debug for Replacer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Replacer")
    }
}

impl PartialEq for Replacer {
    fn eq(&self, other: &Replacer) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Replacer {}

/// What a request body said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestFacts {
    /// The model asked for: the path's, where it names one, for that is what providers go by.
    pub model: Option<String>,
    /// The model that we put in its place.
    pub model_put: Option<String>,
    /// Whether the app asked for a stream.
    pub streams: bool,
    /// The output limit that the app set, in tokens; the higher where it set two.
    pub max_output_tokens: Option<u64>,
    /// The output limit that we put in its place, or where there was none, in tokens.
    pub cap_put: Option<u64>,
    /// Whether there should be such a limit, and is none: the app set none, and the endpoint's key
    /// for it depends on what we do not know.
    pub is_cap_unsure: bool,
    /// How many answers the app asked for (`n`, `candidateCount`), each of which may reach the
    /// output limit; `None` where the body does not say.
    pub n_choices: Option<u64>,
    /// Whether tools are offered: the provider's own may cost more than tokens.
    pub has_tools: bool,
    /// Whether tools are offered that a router runs between turns of the model
    /// (<https://openrouter.ai/docs/guides/features/server-tools>).
    pub has_router_tools: bool,
    /// Characters that the app wants to have spoken.
    pub n_spoken: Option<u64>,
    /// The service tier that the app asked for.
    pub service_tier: Option<String>,
    /// Whether the app itself asked for the usage event of its stream.
    pub app_includes_usage: bool,
    /// Whether we asked for it in the app's place, so that the event must be cut out again. Known
    /// when the body has ended.
    pub usage_injected: bool,
    /// Whether the app asked the model to reason.
    pub asks_reasoning: bool,
    /// Bytes of body seen; of one that was decoded, those that it decodes to.
    pub body_bytes: u64,
    /// Bytes of it that are images, sound or files, as base64; to about 256 bytes each.
    pub media_bytes: u64,
}

impl RequestFacts {
    /// Bytes of body that are text, the JSON around it included.
    pub fn text_bytes(&self) -> u64 {
        self.body_bytes.saturating_sub(self.media_bytes)
    }
}

/// Scans, and where told so splices, one request body as it streams by.
pub struct RequestBody {
    facts: RequestFacts,
    media: MediaGauge,
    content: Content,
    /// Reads what the body decodes to, where it is encoded.
    encoded: Option<Box<Encoded>>,
    /// Why nothing can undo its encoding, where it has one.
    undecodable: Option<Trouble>,
}

/// What the body is made of.
enum Content {
    Json(Box<Json>),
    Form(Box<Multipart>),
    /// Nothing that is read.
    Other,
}

struct Json {
    form: &'static Form,
    /// Whether the model is the one that the body names.
    names_model: bool,
    /// Whether the endpoint answers from data of one's own.
    takes_data_sources: bool,
    scanner: Scanner<Field>,
    progress: Progress,
    wishes: Wishes,
    /// Absent where nothing may be edited.
    splicer: Option<Splicer>,
}

// === impl RequestBody ===

impl RequestBody {
    /// A body for that target; `content_type` as the request's header has it. What says that it is
    /// neither JSON nor a form is read as JSON all the same, since some servers do not look at the
    /// header, and never edited.
    pub fn new(target: &Target, content_type: Option<&str>, edits: Edits) -> RequestBody {
        let form = Form::of(target);
        let content = match content_type {
            Some(value) if !is_json(value) => match Multipart::new(value) {
                Some(multipart) => Content::Form(Box::new(multipart)),
                None => Content::Json(Box::new(Json::new(form, target, Edits::default()))),
            },
            _ => Content::Json(Box::new(Json::new(form, target, edits))),
        };
        RequestBody::made_of(content, target, form)
    }

    /// A body that the app sends encoded, as its header `content-encoding` says. It is read as what it
    /// decodes to, with a decoder that has its memory out of the pool until the body ends, and is
    /// never edited. What cannot be decoded is read as it is.
    pub fn encoded(
        target: &Target,
        content_type: Option<&str>,
        content_encoding: &str,
        pool: &DecoderPool,
    ) -> RequestBody {
        let body = || RequestBody::new(target, content_type, Edits::default());
        let (encoded, undecodable) = match Encoded::new(content_encoding, body(), pool) {
            Ok(encoded) => (Some(Box::new(encoded)), None),
            Err(trouble) => (None, Some(trouble)),
        };
        RequestBody {
            encoded,
            undecodable,
            ..body()
        }
    }

    /// A body that is not read here: frames of a WebSocket.
    pub fn unread(target: &Target) -> RequestBody {
        let form = Form::of(target);
        RequestBody::made_of(Content::Other, target, form)
    }

    fn made_of(content: Content, target: &Target, form: &Form) -> RequestBody {
        RequestBody {
            facts: RequestFacts {
                model: target.path_model.clone(),
                streams: form.streams,
                ..RequestFacts::default()
            },
            media: MediaGauge::default(),
            content,
            encoded: None,
            undecodable: None,
        }
    }

    /// Whether the body's length may change, so that `content-length` must go.
    pub fn may_change(&self) -> bool {
        matches!(&self.content, Content::Json(json) if json.splicer.is_some())
    }

    /// Takes the next bytes; `Some` are the bytes to send in their place. Of a value that may have
    /// to be replaced, at most 1,538 bytes are withheld until its end is known: as many as a text
    /// of 256 bytes may take.
    pub fn push(&mut self, chunk: &[u8]) -> Option<Vec<u8>> {
        if let Some(encoded) = &mut self.encoded {
            encoded.push(chunk);
        }
        let base = self.facts.body_bytes;
        self.facts.body_bytes += chunk.len() as u64;
        self.facts.media_bytes += self.media.push(chunk);
        match &mut self.content {
            Content::Json(json) => json.push(chunk, base, &mut self.facts),
            Content::Form(form) => {
                form.push(chunk, &mut self.facts);
                None
            }
            Content::Other => None,
        }
    }

    /// The body has ended; `Some` are bytes that were withheld until now, to be sent at its end.
    /// Only a body that was cut within a value has such bytes.
    pub fn finish(&mut self) -> Option<Vec<u8>> {
        if let Some(encoded) = &mut self.encoded {
            encoded.finish();
        }
        let Content::Json(json) = &mut self.content else {
            return None;
        };
        let withheld = json.splicer.as_mut()?.take_withheld();
        (!withheld.is_empty()).then_some(withheld)
    }

    /// What was read so far; final once the body has ended.
    pub fn facts(&self) -> &RequestFacts {
        let encoded = self.encoded.as_ref();
        let decoded = encoded.and_then(|encoded| encoded.facts());
        decoded.unwrap_or(&self.facts)
    }

    /// Whether what it says is not known for sure: it is said to be encoded and could not be decoded
    /// to its end, or it is a form that servers may read in several ways. The facts are what is
    /// likely then. Final once the body has ended.
    pub fn is_unsure(&self) -> bool {
        let is_form_unsure = matches!(&self.content, Content::Form(form) if form.is_unsure());
        match &self.encoded {
            Some(encoded) => encoded.is_unsure(),
            None => self.undecodable.is_some() || is_form_unsure,
        }
    }

    /// Whether it could not be decoded for want of memory in the pool.
    pub fn lacks_memory(&self) -> bool {
        let encoded = self.encoded.as_ref();
        encoded.is_some_and(|encoded| encoded.lacks_memory())
            || self.undecodable == Some(Trouble::DecoderBudget)
    }

    /// Bytes of body seen as they are sent, encoded or not.
    pub fn n_bytes_sent(&self) -> u64 {
        self.facts.body_bytes
    }
}

/// Whether the media type is JSON (`application/json`, or a `+json` suffix).
fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    let subtype = essence.rsplit(['/', '+']).next().unwrap_or_default();
    essence.is_empty() || subtype.eq_ignore_ascii_case("json")
}

// === impl Json ===

impl Json {
    fn new(form: &'static Form, target: &Target, edits: Edits) -> Json {
        let names_model = target.path_model.is_none();
        let wishes = Wishes::new(form, names_model, edits);
        Json {
            form,
            names_model,
            takes_data_sources: target.is_azure,
            scanner: Scanner::new(form.root),
            progress: Progress::default(),
            splicer: wishes.is_any().then(Splicer::new),
            wishes,
        }
    }

    fn push(&mut self, chunk: &[u8], base: u64, facts: &mut RequestFacts) -> Option<Vec<u8>> {
        let mut reader = Reader {
            form: self.form,
            names_model: self.names_model,
            takes_data_sources: self.takes_data_sources,
            wishes: &self.wishes,
            facts,
            progress: &mut self.progress,
            splice: self.splicer.as_mut().map(|s| s.start(chunk, base)),
        };
        self.scanner.push(chunk, &mut reader);
        let has_ended = reader.progress.has_ended();
        let splice = reader.splice?;
        if has_ended {
            return splice.finish_last();
        }
        let at_hand = self.scanner.at_hand();
        let withheld = at_hand.filter(|(field, _)| self.wishes.may_replace(*field));
        splice.finish(withheld.map(|(_, from)| from))
    }
}

#[cfg(test)]
mod tests;
