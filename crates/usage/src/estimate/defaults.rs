//! What tokens an answer should have by what was relayed, until its model's own answers have
//! taught better.
//!
//! Text has a token every few bytes. Where a stream brings it in pieces so short that each may be
//! a token, the pieces are counted instead: most servers that stream token by token send one event
//! for each. A tool call costs more than its text, most of it unseen markup. Which figures hold
//! depends on the model's tokenizer and markup rather than on the API that serves it.
//!
//! The figures of the families, and the default's weight in [`super::ratio`], were fitted by
//! coordinate search over round values on one half of 279 recorded streams of 25 providers: those
//! whose id begins with an even hexadecimal digit. Each was cut at ten places as
//! `tests/estimates.rs` cuts them; what was made small is the mean logarithmic error, and the share
//! that is off by more than a factor of two. Mistral's and DeepSeek's figures for calls follow from
//! the markup that they publish. What all are worth is measured there on the other half: its worst
//! cases were looked at for causes (text that was counted twice, calls that were not counted), and
//! no figure was fitted on it.

use crate::detect::Api;
use crate::relayed::Relayed;

/// Thousandths of a byte a token of a request has, JSON and all: between the recorded requests'
/// median (5.6, where JSON is most of a short request) and that of plain text (4).
const INPUT: u64 = 4500;

/// Pieces of no more bytes than this, on average, are tokens: a token of English has four to five,
/// of an answer that is one long URL or list somewhat more.
const PIECE_BYTES_MAX: u64 = 8;

/// With fewer pieces, their average says nothing.
const PIECES_MIN: u64 = 4;

/// The usual length of a call's text, in bytes: of a shorter one that may not be whole, the
/// overhead counts in proportion.
const CALL_BYTES: u64 = 30;

/// Thousandths of a byte a token has of the code or query of a call that the provider runs itself.
const OWN_CALL: u64 = 3000;

/// How the tokens of one family of models relate to bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Defaults {
    /// Thousandths of a byte a token of text has.
    answer: u64,
    /// Thousandths of a byte a token of a tool call's name and arguments has.
    call: u64,
    /// Tokens that a tool call costs beside its text.
    n_each_call: u64,
    /// Tokens that a call costs beside its text which the provider runs itself.
    n_own_call: u64,
    /// Tokens that an answer costs beside its text.
    n_each_answer: u64,
    /// Whether short pieces may be taken for tokens.
    is_token_by_token: bool,
}

const CLAUDE: Defaults = Defaults {
    answer: 3400,
    call: 4000,
    n_each_call: 30,
    n_own_call: 5,
    n_each_answer: 4,
    is_token_by_token: false,
};

const GEMINI: Defaults = Defaults {
    answer: 4600,
    call: 8000,
    n_each_call: 0,
    n_own_call: 10,
    n_each_answer: 0,
    is_token_by_token: false,
};

const NOVA: Defaults = Defaults {
    answer: 3600,
    call: 2000,
    n_each_call: 6,
    n_own_call: 0,
    n_each_answer: 1,
    is_token_by_token: false,
};

const COHERE: Defaults = Defaults {
    answer: 4200,
    call: 6000,
    n_each_call: 5,
    n_own_call: 15,
    n_each_answer: 2,
    is_token_by_token: true,
};

const CHAT: Defaults = Defaults {
    answer: 4000,
    call: 4000,
    n_each_call: 10,
    n_own_call: 10,
    n_each_answer: 0,
    is_token_by_token: true,
};

/// A call is a control token, its name, another one, and its arguments, since the tokenizers'
/// version 11 (<https://mistralai.github.io/mistral-common/usage/tokenizers>).
const MISTRAL: Defaults = Defaults {
    call: 2500,
    n_each_call: 3,
    ..CHAT
};

/// A call is markup in which the function, and each argument, is an element of its own
/// (<https://huggingface.co/deepseek-ai/DeepSeek-V3.2/blob/main/encoding/encoding_dsv32.py>).
const DEEPSEEK: Defaults = Defaults {
    n_each_call: 25,
    ..CHAT
};

/// OpenAI's reasoning models: an answer has some tokens that are neither its text nor counted as
/// reasoning, whatever serves it.
const OPENAI_REASONING: Defaults = Defaults {
    n_each_answer: 4,
    ..CHAT
};

/// Those of them that count reasoning in multiples of 64 (observed of o4-mini, gpt-5, its mini and
/// its nano, and of no gpt-5.1 or later): what is left over is counted with the answer. gpt-oss
/// counts the headers of its channels with it
/// (<https://cookbook.openai.com/articles/openai-harmony>).
const OPENAI_ROUNDING: Defaults = Defaults {
    n_each_answer: 16,
    ..CHAT
};

impl Defaults {
    /// The figures for a model by its name, where that tells its family, and by the API otherwise.
    pub(super) fn of(api: Api, model: Option<&str>) -> &'static Defaults {
        let model = model.unwrap_or_default().as_bytes();
        let named = [("claude", &CLAUDE), ("gemini", &GEMINI), ("nova-", &NOVA)];
        let is_of = |family: &str| contains(model, family.as_bytes());
        if let Some((_, defaults)) = named.iter().find(|(name, _)| is_of(name)) {
            return defaults;
        }
        let name = api.name();
        match name.split('.').next().unwrap_or(name) {
            "anthropic" => &CLAUDE,
            "gemini" => &GEMINI,
            "cohere" => &COHERE,
            _ => Defaults::of_open_family(model),
        }
    }

    /// The figures for a model that any API may serve.
    fn of_open_family(model: &[u8]) -> &'static Defaults {
        match openai_reasoning(model) {
            Some(defaults) => defaults,
            None if contains(model, b"deepseek") => &DEEPSEEK,
            // Mistral, Ministral, Magistral, Codestral, Devstral.
            None if contains(model, b"stral") => &MISTRAL,
            None => &CHAT,
        }
    }

    /// Whether these models reason unless that is relayed or told, whatever was asked of them: they
    /// have no effort of none (<https://platform.openai.com/docs/guides/reasoning>).
    pub(super) fn always_reasons(&self) -> bool {
        *self == OPENAI_ROUNDING
    }

    /// Whether the reasoning that these models relay is never all of it: Gemini's is a summary
    /// (<https://ai.google.dev/gemini-api/docs/thinking>, "Thought summaries").
    pub(super) fn summarises_thoughts(&self) -> bool {
        *self == GEMINI
    }

    /// The tokens that the spoken part of a whole answer should have, in thousandths.
    pub(super) fn whole_milli(&self, relayed: &Relayed, n_calls: u64) -> u64 {
        let overhead = self.n_each_answer.saturating_mul(1000);
        self.spoken_text_milli(relayed, n_calls)
            .saturating_add(self.calls_milli(relayed, n_calls))
            .saturating_add(overhead)
    }

    /// The same of an answer that was cut. Its overhead belongs to all of its text, of which a cut
    /// at any place has relayed half on average; where its last part had ended, perhaps all.
    pub(super) fn cut_milli(&self, relayed: &Relayed, n_calls: u64) -> u64 {
        if relayed.is_between_parts() {
            return self.whole_milli(relayed, n_calls);
        }
        let overhead = self.n_each_answer.saturating_mul(1000) / 2;
        self.spoken_text_milli(relayed, n_calls)
            .saturating_add(self.cut_calls_milli(relayed, n_calls))
            .saturating_add(overhead)
    }

    /// The tokens that reasoning should have, in thousandths.
    pub(super) fn thought_milli(&self, relayed: &Relayed) -> u64 {
        let n_bytes = relayed.thought_bytes;
        match self.are_tokens(relayed.n_thought_pieces, n_bytes) {
            true => relayed.n_thought_pieces.saturating_mul(1000),
            false => self.text_milli(n_bytes),
        }
    }

    /// The tokens that text should have, in thousandths.
    pub(super) fn text_milli(&self, n_bytes: u64) -> u64 {
        milli_tokens(n_bytes, self.answer)
    }

    /// The tokens that a request should have, in thousandths; the same for all.
    pub(super) fn input_milli(n_bytes: u64) -> u64 {
        milli_tokens(n_bytes, INPUT)
    }

    fn spoken_text_milli(&self, relayed: &Relayed, n_calls: u64) -> u64 {
        let n_pieces = relayed.n_spoken_pieces;
        if self.are_tokens(n_pieces, relayed.spoken_bytes()) {
            return n_pieces.saturating_mul(1000);
        }
        let call = match n_calls {
            0 => OWN_CALL,
            _ => self.call,
        };
        self.text_milli(relayed.answer_bytes)
            .saturating_add(milli_tokens(relayed.call_bytes, call))
    }

    fn are_tokens(&self, n_pieces: u64, n_bytes: u64) -> bool {
        self.is_token_by_token
            && n_pieces >= PIECES_MIN
            && n_bytes <= n_pieces.saturating_mul(PIECE_BYTES_MAX)
    }

    /// What calls cost beside their text, in thousandths of a token.
    fn calls_milli(&self, relayed: &Relayed, n_calls: u64) -> u64 {
        // A call that the provider runs itself is none of the caller's.
        let n_tokens = match (relayed.call_bytes, n_calls) {
            (0, _) => 0,
            (_, 0) => self.n_own_call,
            (_, n_calls) => n_calls.saturating_mul(self.n_each_call),
        };
        n_tokens.saturating_mul(1000)
    }

    /// The same of calls of which the last may have been cut; they are taken to be of one length.
    fn cut_calls_milli(&self, relayed: &Relayed, n_calls: u64) -> u64 {
        let whole = self.calls_milli(relayed, n_calls);
        let each = self.n_each_call.saturating_mul(1000);
        match relayed.call_bytes.checked_div(n_calls) {
            Some(n_bytes) if n_bytes < CALL_BYTES => {
                let missing = each.saturating_mul(CALL_BYTES - n_bytes) / CALL_BYTES;
                whole.saturating_sub(missing)
            }
            _ => whole,
        }
    }
}

/// The figures of the models that <https://platform.openai.com/docs/guides/reasoning> is about, and
/// of their open siblings; `None` for others. Routers put `openai/` or `openai.` before the name.
fn openai_reasoning(model: &[u8]) -> Option<&'static Defaults> {
    let name = model.rsplit(|byte| *byte == b'/').next().unwrap_or(model);
    let name = after(name, b"openai.").unwrap_or(name);
    let is_o_series = ["o1", "o3", "o4"].iter().any(|o| {
        let rest = after(name, o.as_bytes());
        rest.is_some_and(|rest| rest.first().is_none_or(|byte| *byte == b'-'))
    });
    if is_o_series || after(name, b"gpt-oss").is_some() {
        return Some(&OPENAI_ROUNDING);
    }
    let rest = after(name, b"gpt-5").filter(|rest| !contains(rest, b"-chat"))?;
    Some(match rest.first() {
        Some(b'.') => &OPENAI_REASONING,
        _ => &OPENAI_ROUNDING,
    })
}

/// What comes behind that beginning, in whatever case.
fn after<'n>(name: &'n [u8], beginning: &[u8]) -> Option<&'n [u8]> {
    let (begin, rest) = name.split_at_checked(beginning.len())?;
    begin.eq_ignore_ascii_case(beginning).then_some(rest)
}

/// Whether that part is in it, in whatever case.
fn contains(name: &[u8], part: &[u8]) -> bool {
    let mut parts = name.windows(part.len());
    parts.any(|of_name| of_name.eq_ignore_ascii_case(part))
}

/// Bytes over thousandths of a byte a token, as thousandths of a token.
fn milli_tokens(n_bytes: u64, bytes_per_token: u64) -> u64 {
    n_bytes.saturating_mul(1_000_000) / bytes_per_token.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_known_by_the_name_before_the_api() {
        let (chat, responses) = (Api::OpenAiChat, Api::OpenAiResponses);
        for (api, model, family) in [
            (chat, "gpt-4o", &CHAT),
            (chat, "gpt-5-mini-2025-08-07", &OPENAI_ROUNDING),
            (chat, "gpt-5.2", &OPENAI_REASONING),
            (chat, "gpt-5-chat-latest", &CHAT),
            (chat, "openai/gpt-oss-120b", &OPENAI_ROUNDING),
            (chat, "o4-mini", &OPENAI_ROUNDING),
            (chat, "o3", &OPENAI_ROUNDING),
            (chat, "o1x", &CHAT),
            (chat, "olmo-2", &CHAT),
            (chat, "mistral.ministral-3-8b-instruct", &MISTRAL),
            (chat, "deepseek/DeepSeek-V4-Flash", &DEEPSEEK),
            (responses, "openai.gpt-5.6-luna", &OPENAI_REASONING),
            (responses, "gpt-4o", &CHAT),
            (chat, "anthropic/claude-haiku-4.5", &CLAUDE),
            (Api::AnthropicMessages, "gpt-5", &CLAUDE),
        ] {
            assert_eq!(Defaults::of(api, Some(model)), family, "{model}");
        }
        assert_eq!(Defaults::of(responses, None), &CHAT);
    }
}
