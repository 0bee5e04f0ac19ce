//! The price tables that ship inside the binary.

use std::sync::LazyLock;

use crate::book::SourceFile;

macro_rules! tables {
    ($($name:literal),* $(,)?) => {
        const TABLES: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../../../pricing/", $name)))),*];
    };
}

// One line a file of `pricing/`; a test compares this list with the folder.
tables![
    "anthropic.toml",
    "google.toml",
    "openai.toml",
];

pub(crate) fn files() -> &'static [SourceFile] {
    static FILES: LazyLock<Vec<SourceFile>> = LazyLock::new(|| {
        let file = |(name, text): &(&str, &str)| SourceFile {
            name: (*name).to_owned(),
            text: (*text).to_owned(),
        };
        TABLES.iter().map(file).collect()
    });
    &FILES
}
