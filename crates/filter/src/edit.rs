//! A change to the headers of a message, as a value that the host carries out.

use std::borrow::Cow;

/// One change to a header map. Names are in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderEdit {
    /// Takes every header of that name out.
    Remove(Cow<'static, str>),
    /// Makes the header of that name have this value. Where there may be several of it, a
    /// [`HeaderEdit::Remove`] comes before.
    Set(Cow<'static, str>, Vec<u8>),
}

impl HeaderEdit {
    /// The header that is changed.
    pub fn name(&self) -> &str {
        match self {
            HeaderEdit::Remove(name) | HeaderEdit::Set(name, _) => name,
        }
    }
}
