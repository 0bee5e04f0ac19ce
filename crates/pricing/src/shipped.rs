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
    "avian.toml",
    "aws-bedrock.toml",
    "azure.toml",
    "cerebras.toml",
    "cohere.toml",
    "crusoe.toml",
    "deepinfra.toml",
    "deepseek.toml",
    "doubleword.toml",
    "fireworks.toml",
    "google.toml",
    "groq.toml",
    "meta.toml",
    "minimax.toml",
    "mistral.toml",
    "moonshotai.toml",
    "nebius.toml",
    "novita.toml",
    "openai.toml",
    "openrouter.toml",
    "perplexity.toml",
    "sambanova.toml",
    "together.toml",
    "venice.toml",
    "vercel-ai-gateway.toml",
    "vertex.toml",
    "voyage.toml",
    "watsonx.toml",
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::Book;

    #[test]
    fn every_file_of_the_folder_ships() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../pricing");
        let names = std::fs::read_dir(folder).unwrap();
        let names = names.map(|f| f.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|n| n.ends_with(".toml")).collect();
        names.sort_unstable();
        let shipped: Vec<&str> = TABLES.iter().map(|(name, _)| *name).collect();
        assert_eq!(shipped, names, "list each file of pricing/, in order");
    }

    #[test]
    fn shipped_tables_have_no_mistake() {
        let problems = Book::load(files()).err().unwrap_or_default();
        let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert!(problems.is_empty(), "{}", problems.join("\n"));
    }
}
