//! The configured price files: their texts, what stands in them, and whether they stand still.

use std::collections::BTreeSet;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::PricesError;
use crate::stamp::Stamp;

/// A price table is text that people review; more is a wrong file.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Names and texts of the configured files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Files {
    /// In the order in which they override.
    pub(super) tables: Vec<(String, String)>,
    pub(super) overrides: Option<(String, String)>,
}

impl Files {
    /// Every file of those paths: folders in their given order, files within by name.
    pub(super) fn read(paths: &[PathBuf], overrides: Option<&Path>) -> Result<Files, PricesError> {
        let (files, errors) = Files::look(paths, overrides);
        match errors.into_iter().next() {
            None => Ok(files),
            Some(error) => Err(error),
        }
    }

    /// Those that can be read, and why the others cannot.
    pub(super) fn look(paths: &[PathBuf], overrides: Option<&Path>) -> (Files, Vec<PricesError>) {
        let (mut files, mut errors) = (Files::default(), Vec::new());
        for path in paths {
            let tables = tables_at(path).map_err(|error| unreadable(path, &error));
            let tables = tables.map_err(|error| errors.push(error));
            for file in tables.into_iter().flatten() {
                match read_named(&file) {
                    Ok(table) => files.tables.push(table),
                    Err(error) => errors.push(error),
                }
            }
        }
        match overrides.map(read_named).transpose() {
            Ok(overrides) => files.overrides = overrides,
            Err(error) => errors.push(error),
        }
        (files, errors)
    }

    pub(super) fn len(&self) -> usize {
        self.all().count()
    }

    fn all(&self) -> impl Iterator<Item = &(String, String)> {
        self.tables.iter().chain(&self.overrides)
    }

    /// What stands in these files and not in `new`, each as a file with a place in it.
    pub(super) fn lacking(&self, new: &Files) -> Vec<String> {
        let new = new.places();
        let old = self.places();
        let lacking: BTreeSet<&Place> = old.difference(&new).collect();
        let is_below =
            |place: &Place| (1..place.len()).any(|n| lacking.contains(&place[..n].to_vec()));
        let whole = lacking.iter().filter(|place| !is_below(place));
        whole.map(|place| place.join(": ")).collect()
    }

    /// Whether `new` may be only a part of what is being written: something is missing, or a text is
    /// how one of these begins.
    pub(super) fn may_be_cut(&self, new: &Files) -> bool {
        let is_begin = |(name, text): &(String, String)| {
            let mut same = self.all().filter(|(old, _)| old == name);
            same.any(|(_, old)| text.len() < old.len() && old.starts_with(text))
        };
        new.all().any(is_begin) || !self.lacking(new).is_empty()
    }

    fn places(&self) -> BTreeSet<Place> {
        let mut places = BTreeSet::new();
        for (name, text) in self.all() {
            let file = vec![name.clone()];
            if let Ok(table) = text.parse::<Table>() {
                add_places(&file, &table, &mut places);
            }
            places.insert(file);
        }
        places
    }
}

/// A file's name and what leads to a key in it, entries of lists by their names.
type Place = Vec<String>;

fn add_places(at: &[String], table: &Table, places: &mut BTreeSet<Place>) {
    for (key, value) in table {
        let place = |what: String| [at, &[what]].concat();
        match value {
            Value::Table(table) => add_places(&place(key.clone()), table, places),
            Value::Array(entries) if entries.iter().all(Value::is_table) => {
                for (n, entry) in (1..).zip(entries.iter().filter_map(Value::as_table)) {
                    let place = place(entry_name(key, n, entry));
                    add_places(&place, entry, places);
                    places.insert(place);
                }
                continue;
            }
            _ => {}
        }
        places.insert(place(key.clone()));
    }
}

/// `override "acme"`, or with its number where it has no name.
fn entry_name(key: &str, n: usize, entry: &Table) -> String {
    let name = ["id", "name"]
        .iter()
        .find_map(|name| entry.get(*name)?.as_str());
    match name {
        Some(name) => format!("{key} {name:?}"),
        None => format!("{key} {n}"),
    }
}

/// The state of each file, so that a change of any shows.
pub(super) fn stamps(paths: &[PathBuf], overrides: Option<&Path>) -> Vec<(PathBuf, Option<Stamp>)> {
    let tables = paths
        .iter()
        .flat_map(|path| tables_at(path).unwrap_or_default());
    let files = tables.chain(overrides.map(Path::to_owned));
    files.map(|file| (file.clone(), Stamp::of(&file))).collect()
}

fn read_named(file: &Path) -> Result<(String, String), PricesError> {
    let text = read_table(file).map_err(|error| unreadable(file, &error))?;
    Ok((file.display().to_string(), text))
}

fn unreadable(path: &Path, error: &io::Error) -> PricesError {
    let why = match error.kind() {
        io::ErrorKind::InvalidData => "it is no UTF-8 text; save it as such".to_owned(),
        _ => format!("{error}; correct the path or the file's permissions"),
    };
    PricesError::Unreadable {
        path: path.display().to_string(),
        why,
    }
}

/// The path itself, or the tables in it where it is a folder.
fn tables_at(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut tables = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let file = entry?.path();
        if file.extension().is_some_and(|ext| ext == "toml") && file.is_file() {
            tables.push(file);
        }
    }
    tables.sort();
    Ok(tables)
}

fn read_table(file: &Path) -> io::Result<String> {
    // Who opens a pipe waits for whoever writes it.
    if !std::fs::metadata(file)?.is_file() {
        return Err(io::Error::other("is no regular file"));
    }
    let mut text = String::new();
    let n_bytes = std::fs::File::open(file)?
        .take(FILE_BYTES_MAX + 1)
        .read_to_string(&mut text)? as u64;
    if n_bytes > FILE_BYTES_MAX {
        return Err(io::Error::other(format!(
            "larger than {FILE_BYTES_MAX} bytes"
        )));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "schema = 1\n[[override]]\nid = \"a\"\ntimes = \"0.5\"\nuntil = 2027-01-01\n\
                        [[override]]\nid = \"b\"\nrate = { input = \"1\", output = \"2\" }\n\
                        [[deployment]]\nname = \"d\"\nmodel = \"m\"\n";

    #[test]
    fn what_is_gone_is_named_by_its_outermost_place() {
        let files = |text: &str| Files {
            tables: Vec::new(),
            overrides: Some(("o.toml".to_owned(), text.to_owned())),
        };
        let old = files(TEXT);
        for (text, lacking) in [
            (TEXT.to_owned(), &[][..]),
            (TEXT.replace("0.5", "0.4"), &[]),
            (
                format!("{TEXT}[[override]]\nid = \"c\"\ntimes = \"1\"\n"),
                &[],
            ),
            (
                TEXT.split("[[dep").next().unwrap_or_default().to_owned(),
                &[r#"o.toml: deployment "d""#],
            ),
            (
                TEXT.replace("until = 2027-01-01\n", "")
                    .replace(", output = \"2\"", ""),
                &[
                    r#"o.toml: override "a": until"#,
                    r#"o.toml: override "b": rate: output"#,
                ],
            ),
        ] {
            let new = files(&text);
            assert_eq!(old.lacking(&new), lacking, "{text}");
            assert_eq!(old.may_be_cut(&new), !lacking.is_empty(), "{text}");
        }
        assert_eq!(old.lacking(&Files::default()), ["o.toml"]);
        assert!(old.may_be_cut(&files(&TEXT[..TEXT.len() - 2])));
    }
}
