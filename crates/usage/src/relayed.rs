//! How much of an answer was relayed: what an estimate is made from.

/// What a piece of relayed text is. Each is billed as output, but not each in the same bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TextKind {
    /// What the caller reads.
    Answer,
    /// Names and arguments of tool calls.
    Call,
    /// What the model thought, or the provider's summary of it.
    Thought,
}

impl TextKind {
    /// All kinds.
    pub(crate) const ALL: [TextKind; 3] = [TextKind::Answer, TextKind::Call, TextKind::Thought];
}

/// Bytes of one answer that were relayed, JSON escapes counted as written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Relayed {
    /// Text that the caller reads.
    pub answer_bytes: u64,
    /// Names and arguments of tool calls.
    pub call_bytes: u64,
    /// Reasoning, or a summary of it.
    pub thought_bytes: u64,
    /// Documents (events, lines, messages) that brought text of the answer or of its tool calls.
    pub n_spoken_pieces: u64,
    /// Documents that brought reasoning only.
    pub n_thought_pieces: u64,
    /// The body as it was on the wire, framing, compression and all.
    pub body_bytes: u64,
    /// [`Relayed::text_bytes`] when the provider last stated an output count; `None` where it
    /// stated none.
    pub reported_at: Option<u64>,
    /// [`Relayed::text_bytes`] when a part of the answer, or one of its tool calls, was last said
    /// to be whole; `None` where none was.
    pub part_ended_at: Option<u64>,
    /// Whether what the provider stated last is about the whole answer.
    pub is_report_final: bool,
    /// Whether the answer shows signs of reasoning that is not relayed, or not wholly.
    pub hides_reasoning: bool,
    /// Whether the body, or the rest of it, could not be decoded.
    pub is_undecoded: bool,
}

impl Relayed {
    /// All text, whatever it is.
    pub fn text_bytes(&self) -> u64 {
        self.answer_bytes
            .saturating_add(self.call_bytes)
            .saturating_add(self.thought_bytes)
    }

    /// What the caller is meant to use: the answer and its tool calls.
    pub fn spoken_bytes(&self) -> u64 {
        self.answer_bytes.saturating_add(self.call_bytes)
    }

    /// Whether the last part that has text is whole.
    pub fn is_between_parts(&self) -> bool {
        self.part_ended_at == Some(self.text_bytes())
    }

    /// A part of the answer, or a tool call, is whole.
    pub(crate) fn end_part(&mut self) {
        self.part_ended_at = Some(self.text_bytes());
    }

    /// Bytes of each kind of text, in the order of [`TextKind::ALL`].
    pub(crate) fn by_kind(&self) -> [u64; 3] {
        [self.answer_bytes, self.call_bytes, self.thought_bytes]
    }

    pub(crate) fn add(&mut self, kind: TextKind, n_bytes: u64) {
        let slot = self.slot(kind);
        *slot = slot.saturating_add(n_bytes);
    }

    /// Counts the document that has just ended, before which there were so many bytes of text.
    pub(crate) fn count_piece(&mut self, n_spoken_before: u64, n_text_before: u64) {
        if self.spoken_bytes() > n_spoken_before {
            self.n_spoken_pieces += 1;
        } else if self.text_bytes() > n_text_before {
            self.n_thought_pieces += 1;
        }
    }

    /// Counts documents that brought text of one kind each.
    pub(crate) fn count_pieces(&mut self, kind: TextKind, n: u64) {
        match kind {
            TextKind::Answer | TextKind::Call => self.n_spoken_pieces += n,
            TextKind::Thought => self.n_thought_pieces += n,
        }
    }

    /// Takes back what was added; for text whose kind is known only once it has passed.
    pub(crate) fn take_back(&mut self, kind: TextKind, n_bytes: u64) {
        let slot = self.slot(kind);
        *slot = slot.saturating_sub(n_bytes);
    }

    /// The one kind of text that is more here than in `before`.
    pub(crate) fn only_growth(&self, before: &Relayed) -> Option<TextKind> {
        match (
            self.answer_bytes > before.answer_bytes,
            self.call_bytes > before.call_bytes,
            self.thought_bytes > before.thought_bytes,
        ) {
            (true, false, false) => Some(TextKind::Answer),
            (false, true, false) => Some(TextKind::Call),
            (false, false, true) => Some(TextKind::Thought),
            _ => None,
        }
    }

    fn slot(&mut self, kind: TextKind) -> &mut u64 {
        match kind {
            TextKind::Answer => &mut self.answer_bytes,
            TextKind::Call => &mut self.call_bytes,
            TextKind::Thought => &mut self.thought_bytes,
        }
    }
}
