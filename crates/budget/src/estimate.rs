//! The most that a call may use, from what is known before it is sent.

/// A call as far as it is known when it asks to go ahead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Bytes of the request's body.
    pub body_bytes: u64,
    /// Of these, bytes of embedded media, as they stand in the body (base64).
    pub media_bytes: u64,
    /// The most output tokens that it asks for.
    pub max_output_tokens: Option<u64>,
    /// Answers that it asks for.
    pub choices: Option<u64>,
}

/// What a call uses at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bound {
    /// Tokens of text that it sends.
    pub text_tokens: u64,
    /// Tokens of images, audio and files that it sends.
    pub media_tokens: u64,
    /// Tokens that it is answered with, all answers together.
    pub output_tokens: u64,
    /// Answers.
    pub choices: u64,
}

/// Output tokens of an answer whose call names no limit, unless the budget says otherwise: what
/// providers let a model write by default is mostly no more
/// (<https://platform.openai.com/docs/models/gpt-4o>: at most 16,384). Reasoning models may write
/// more.
pub const OUTPUT_TOKENS_DEFAULT: u64 = 16_384;

/// The longest context that providers offer (<https://ai.google.dev/gemini-api/docs/long-context>:
/// two million tokens): a longer request is refused and costs nothing.
pub const INPUT_TOKENS_MAX: u64 = 2_097_152;

/// Bytes of base64 that a token of media takes at least. A page of a PDF that is nothing but text is
/// the densest: some 3 KB compressed are up to 3,000 tokens
/// (<https://docs.anthropic.com/en/docs/build-with-claude/pdf-support>). Of an image, 1,600 tokens
/// (<https://docs.anthropic.com/en/docs/build-with-claude/vision>) take a hundred times the bytes.
const MEDIA_BYTES_PER_TOKEN: u64 = 2;

/// Tokens that the smallest medium may be: an image is resized, and charged by its tiles, whatever
/// its bytes.
const MEDIA_TOKENS_MIN: u64 = 2_048;

/// Answers that a call may ask for; providers allow fewer.
const CHOICES_MAX: u64 = 1_024;

/// What such a call uses at most, where an answer without a limit has at most `output_tokens`.
///
/// A token of text is one byte or more in every tokenizer. What a provider adds by itself (results
/// of its own tools, an earlier turn that it remembers) is not in the body, and not in here.
pub fn bound(facts: &Facts, output_tokens: u64) -> Bound {
    let media_bytes = facts.media_bytes.min(facts.body_bytes);
    let text_tokens = (facts.body_bytes - media_bytes).min(INPUT_TOKENS_MAX);
    let media_tokens = match media_bytes {
        0 => 0,
        bytes => (bytes / MEDIA_BYTES_PER_TOKEN).max(MEDIA_TOKENS_MIN),
    };
    let choices = facts.choices.unwrap_or(1).clamp(1, CHOICES_MAX);
    let each = facts.max_output_tokens.unwrap_or(output_tokens);
    Bound {
        text_tokens,
        media_tokens: media_tokens.min(INPUT_TOKENS_MAX - text_tokens),
        output_tokens: each.saturating_mul(choices),
        choices,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds() {
        let facts = |body_bytes, media_bytes, max, choices| Facts {
            body_bytes,
            media_bytes,
            max_output_tokens: max,
            choices,
        };
        for (name, facts, text, media, output) in [
            ("text alone", facts(900, 0, Some(100), None), 900, 0, 100),
            ("no limit", facts(900, 0, None, None), 900, 0, 4_096),
            ("answers", facts(10, 0, Some(50), Some(4)), 10, 0, 200),
            (
                "a small image",
                facts(700, 500, None, None),
                200,
                2_048,
                4_096,
            ),
            (
                "a photograph",
                facts(400_100, 400_000, None, None),
                100,
                200_000,
                4_096,
            ),
            (
                "more media than body",
                facts(10, 500, None, None),
                0,
                2_048,
                4_096,
            ),
            (
                "longer than any context",
                facts(90_000_000, 40_000_000, None, None),
                INPUT_TOKENS_MAX,
                0,
                4_096,
            ),
            (
                "absurd wishes",
                facts(1, 0, Some(u64::MAX), Some(u64::MAX)),
                1,
                0,
                u64::MAX,
            ),
        ] {
            let bound = bound(&facts, 4_096);
            let got = (bound.text_tokens, bound.media_tokens, bound.output_tokens);
            assert_eq!(got, (text, media, output), "{name}");
        }
    }

    proptest::proptest! {
        /// A call that may use more is never bound lower.
        #[test]
        fn a_larger_call_has_no_smaller_bound(
            body in 0_u64..10_000_000, more in 0_u64..1_000_000, media in 0_u64..10_000_000,
            max in proptest::option::of(0_u64..100_000),
        ) {
            let facts = Facts {
                body_bytes: body,
                media_bytes: media.min(body),
                max_output_tokens: max,
                choices: None,
            };
            let larger = Facts { body_bytes: body + more, ..facts };
            let (a, b) = (bound(&facts, 4_096), bound(&larger, 4_096));
            assert!(a.text_tokens + a.media_tokens <= b.text_tokens + b.media_tokens);
            assert_eq!(a.output_tokens, b.output_tokens);
        }
    }
}
