//! How much of a request body is images, sound and files, which are no text.
//!
//! They come as base64, in runs of thousands of bytes without a space, a quote or a comma. Text
//! has such a byte every few: so looking at the beginning of every block tells the two apart at
//! the cost of a few bytes a block.

/// The bytes that are judged together.
const BLOCK_BYTES: u64 = 256;

/// How many bytes of base64 a block of media begins with; no word is as long.
const PROBE_BYTES: u64 = 64;

/// The state of one body.
#[derive(Debug, Default)]
pub(super) struct MediaGauge {
    n_bytes: u64,
    /// Nothing but base64 since the block's first byte.
    is_run: bool,
}

impl MediaGauge {
    /// Takes the next bytes; how many bytes of media they reveal.
    pub(super) fn push(&mut self, chunk: &[u8]) -> u64 {
        let mut n_media = 0;
        let mut rest = chunk;
        while !rest.is_empty() {
            let place = self.n_bytes % BLOCK_BYTES;
            self.is_run |= place == 0;
            let is_probing = self.is_run && place < PROBE_BYTES;
            let end = if is_probing { PROBE_BYTES } else { BLOCK_BYTES };
            let n_wanted = usize::try_from(end - place).unwrap_or(usize::MAX);
            let (piece, later) = rest.split_at_checked(n_wanted).unwrap_or((rest, &[]));
            if is_probing {
                self.is_run = piece.iter().all(is_base64);
                if self.is_run && piece.len() == n_wanted {
                    n_media += BLOCK_BYTES;
                }
            }
            self.n_bytes += piece.len() as u64;
            rest = later;
        }
        n_media
    }
}

/// RFC 4648, sections 4 and 5.
fn is_base64(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=' | b'-' | b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_are_told_from_text_in_any_chunks() {
        let text = r#"{"role":"user","content":"a sentence such as people write, 42 times over"},"#;
        let image = "iVBORw0KGgoAAAANSUhEUgAA/+9".repeat(1000);
        let chinese = "\u{4F60}\u{597D}\u{4E16}\u{754C}".repeat(400);
        for (body, n_bytes) in [
            (text.repeat(100), 0),
            (chinese, 0),
            ("\\u4f60\\u597d".repeat(400), 0),
            (
                format!("{}{image}{}", text.repeat(3), text.repeat(3)),
                image.len(),
            ),
        ] {
            for n_chunk in [1, 7, 300, body.len()] {
                let mut gauge = MediaGauge::default();
                let chunks = body.as_bytes().chunks(n_chunk);
                let n_media: u64 = chunks.map(|chunk| gauge.push(chunk)).sum();
                let error = n_media.abs_diff(n_bytes as u64);
                assert!(error <= BLOCK_BYTES.min(n_media), "{n_media} by {n_chunk}");
            }
        }
    }
}
