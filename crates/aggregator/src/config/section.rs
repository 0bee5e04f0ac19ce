//! Reading of one TOML table, key by key, so that every mistake in it is told at once.

use std::cell::RefCell;
use std::collections::BTreeMap;

use toml::{Table, Value};

use super::problem::Problem;

/// A table of a configuration file of which keys are still to be taken.
///
/// Each key is asked for by name; what nobody asked for is refused by [`Section::finish`].
pub struct Section<'a> {
    sink: &'a Sink,
    path: String,
    table: Table,
    known: Vec<&'static str>,
}

/// Where the mistakes of one file gather.
pub struct Sink {
    file: String,
    problems: RefCell<Vec<Problem>>,
}

// === impl Sink ===

impl Sink {
    /// An empty sink for that file.
    pub fn new(file: &str) -> Sink {
        Sink {
            file: file.to_owned(),
            problems: RefCell::default(),
        }
    }

    /// Notes a mistake at that key.
    pub fn refuse(&self, key: impl Into<String>, what: impl Into<String>) {
        self.problems.borrow_mut().push(Problem {
            file: self.file.clone(),
            key: key.into(),
            what: what.into(),
        });
    }

    /// All mistakes so far.
    pub fn into_problems(self) -> Vec<Problem> {
        self.problems.into_inner()
    }
}

// === impl Section ===

impl<'a> Section<'a> {
    /// The whole file as a section.
    pub fn root(sink: &'a Sink, table: Table) -> Section<'a> {
        Section {
            sink,
            path: String::new(),
            table,
            known: Vec::new(),
        }
    }

    /// The table under that key; an empty one where the file has none.
    pub fn section(&mut self, key: &'static str) -> Section<'a> {
        let table = match self.take(key) {
            Some(Value::Table(table)) => table,
            Some(other) => {
                self.refuse(key, wrong_kind("a table", &other));
                Table::new()
            }
            None => Table::new(),
        };
        Section {
            sink: self.sink,
            path: self.path_of(key),
            table,
            known: Vec::new(),
        }
    }

    /// All tables that are yet to be taken, by their names, which the operator chooses.
    pub fn named_tables(&mut self) -> Vec<(String, Section<'a>)> {
        let mut tables = Vec::new();
        for (name, value) in std::mem::take(&mut self.table) {
            match value {
                Value::Table(table) => {
                    let section = Section {
                        sink: self.sink,
                        path: self.path_of(&name),
                        table,
                        known: Vec::new(),
                    };
                    tables.push((name, section));
                }
                other => self.refuse(&name, wrong_kind("a table", &other)),
            }
        }
        tables
    }

    /// The tables in the list under that key; none where the file has no such list.
    pub fn tables(&mut self, key: &'static str) -> Vec<Section<'a>> {
        let Some(value) = self.take(key) else {
            return Vec::new();
        };
        let tables = value.as_array().and_then(|items| {
            let tables = items.iter().map(|item| item.as_table().cloned());
            tables.collect::<Option<Vec<_>>>()
        });
        if tables.is_none() {
            self.refuse(key, wrong_kind("a list of tables", &value));
        }
        let path = self.path_of(key);
        let numbered = tables.into_iter().flatten().enumerate();
        let section = |(n, table)| Section {
            sink: self.sink,
            path: format!("{path}[{n}]"),
            table,
            known: Vec::new(),
        };
        numbered.map(section).collect()
    }

    /// The strings by name under that key.
    pub fn words(&mut self, key: &'static str) -> Option<BTreeMap<String, String>> {
        let value = self.take(key)?;
        let words = value.as_table().and_then(|table| {
            let words = table.iter();
            let words = words.map(|(name, word)| Some((name.clone(), word.as_str()?.to_owned())));
            words.collect::<Option<BTreeMap<_, _>>>()
        });
        if words.is_none() {
            self.refuse(key, wrong_kind("a table of strings", &value));
        }
        words
    }

    /// The text under that key.
    pub fn text(&mut self, key: &'static str) -> Option<String> {
        match self.take(key)? {
            Value::String(text) => Some(text),
            other => {
                self.refuse(key, wrong_kind("a string", &other));
                None
            }
        }
    }

    /// The text under that key as `parse` reads it; what `parse` says is wrong is told.
    pub fn parsed<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = self.text(key)?;
        parse(&text).map_err(|what| self.refuse(key, what)).ok()
    }

    /// The whole number under that key, where it is within the bounds (both included).
    pub fn number(&mut self, key: &'static str, bounds: (u64, u64), unit: &str) -> Option<u64> {
        let value = self.take(key)?;
        let number = value.as_integer().and_then(|n| u64::try_from(n).ok());
        match number {
            Some(n) if (bounds.0..=bounds.1).contains(&n) => Some(n),
            _ => {
                let expected = format!("a number of {unit} from {} to {}", bounds.0, bounds.1);
                self.refuse(key, wrong_kind(&expected, &value));
                None
            }
        }
    }

    /// The `true` or `false` under that key.
    pub fn flag(&mut self, key: &'static str) -> Option<bool> {
        let value = self.take(key)?;
        if value.as_bool().is_none() {
            self.refuse(key, wrong_kind("true or false", &value));
        }
        value.as_bool()
    }

    /// The strings under that key.
    pub fn texts(&mut self, key: &'static str) -> Option<Vec<String>> {
        let value = self.take(key)?;
        let texts = value.as_array().and_then(|items| {
            let texts = items.iter().map(|item| item.as_str().map(str::to_owned));
            texts.collect::<Option<Vec<_>>>()
        });
        if texts.is_none() {
            self.refuse(key, wrong_kind("a list of strings", &value));
        }
        texts
    }

    /// The file's name in messages.
    pub fn file(&self) -> &str {
        &self.sink.file
    }

    /// Whether the file says nothing here that is yet to be taken.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Whether the file has that key, and it is yet to be taken.
    pub fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// That key could be here.
    pub fn know(&mut self, key: &'static str) {
        self.known.push(key);
    }

    /// Leaves that key out of account: it was judged already.
    pub fn skip(&mut self, key: &str) {
        self.table.remove(key);
    }

    /// Whether something in this section was refused already.
    pub fn has_refused_below(&self) -> bool {
        let below = format!("{}.", self.path);
        let problems = self.sink.problems.borrow();
        problems
            .iter()
            .any(|problem| problem.key.starts_with(&below))
    }

    /// Notes a mistake at one of this section's keys.
    pub fn refuse(&self, key: &str, what: impl Into<String>) {
        self.sink.refuse(self.path_of(key), what);
    }

    /// Whether something at that key was refused already.
    pub fn has_refused(&self, key: &str) -> bool {
        let path = self.path_of(key);
        let problems = self.sink.problems.borrow();
        problems.iter().any(|problem| problem.key == path)
    }

    /// Refuses every key that was not asked for.
    pub fn finish(self) {
        for key in self.table.keys() {
            let expected = one_of(&self.known);
            let what = match nearest(key, &self.known) {
                Some(near) => format!("unknown key; did you mean {near:?}? expected {expected}"),
                None => format!("unknown key; expected {expected}"),
            };
            self.refuse(key, what);
        }
    }

    fn take(&mut self, key: &'static str) -> Option<Value> {
        self.known.push(key);
        self.table.remove(key)
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else if key.is_empty() {
            self.path.clone()
        } else {
            format!("{}.{key}", self.path)
        }
    }
}

/// `"a", "b" or "c"`.
pub fn one_of(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
    match quoted.as_slice() {
        [] => "none".to_owned(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

fn wrong_kind(expected: &str, got: &Value) -> String {
    let shown = match got {
        Value::Table(_) => "a table".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        scalar => scalar.to_string(),
    };
    format!("found {shown}; expected {expected}")
}

/// The known key that differs from this one by at most two edits.
pub fn nearest<'k>(key: &str, known: &[&'k str]) -> Option<&'k str> {
    known
        .iter()
        .map(|word| (edits_between(key, word), *word))
        .filter(|(edits, word)| *edits <= 2 && *edits < word.len())
        .min()
        .map(|(_, word)| word)
}

/// Levenshtein's distance in characters.
fn edits_between(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_keys_are_named() {
        let known = ["listen", "token_file"];
        assert_eq!(nearest("lisen", &known), Some("listen"));
        assert_eq!(nearest("tokenfile", &known), Some("token_file"));
        assert_eq!(nearest("budgets", &known), None);
    }

    #[test]
    fn lists_of_words() {
        assert_eq!(one_of(&[]), "none");
        assert_eq!(one_of(&["a"]), r#""a""#);
        assert_eq!(one_of(&["a", "b", "c"]), r#""a", "b" or "c""#);
    }
}
