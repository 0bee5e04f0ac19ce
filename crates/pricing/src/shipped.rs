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
    "alibaba.toml",
    "anthropic.toml",
    "aws-bedrock.toml",
    "azure.toml",
    "cerebras.toml",
    "cohere.toml",
    "deepseek.toml",
    "fireworks.toml",
    "google.toml",
    "groq.toml",
    "meta.toml",
    "minimax.toml",
    "mistral.toml",
    "moonshotai.toml",
    "openai.toml",
    "openrouter.toml",
    "perplexity.toml",
    "together.toml",
    "vertex.toml",
    "voyage.toml",
    "xai.toml",
    "zai.toml",
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
