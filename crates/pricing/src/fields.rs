//! Tables of a price file, read key by key so that every mistake is told at once.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use toml::{Table, Value};

use crate::amount::Rate;
use crate::book::Problem;

/// The mistakes found so far in one file.
#[derive(Debug)]
pub(crate) struct Report<'a> {
    file: &'a str,
    problems: Vec<Problem>,
}

impl<'a> Report<'a> {
    pub(crate) fn new(file: &'a str) -> Report<'a> {
        Report {
            file,
            problems: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, place: &str, what: impl Into<String>) {
        self.problems.push(Problem {
            file: self.file.to_owned(),
            place: place.to_owned(),
            what: what.into(),
        });
    }

    /// A file that is no TOML.
    pub(crate) fn add_broken(&mut self, text: &str, error: &toml::de::Error) {
        let before = error.span().and_then(|s| text.get(..s.start)).unwrap_or("");
        let place = format!("line {}", before.matches('\n').count() + 1);
        self.add(&place, error.message());
    }

    pub(crate) fn file(&self) -> &'a str {
        self.file
    }

    /// How many mistakes were found so far.
    pub(crate) fn count(&self) -> usize {
        self.problems.len()
    }

    pub(crate) fn into_problems(self) -> Vec<Problem> {
        self.problems
    }
}

/// One table; keys are taken out, and [`Fields::finish`] refuses those that nobody took.
#[derive(Debug)]
pub(crate) struct Fields {
    table: Table,
    place: String,
    known: Vec<&'static str>,
}

impl Fields {
    pub(crate) fn new(table: Table, place: impl Into<String>) -> Fields {
        Fields {
            table,
            place: place.into(),
            known: Vec::new(),
        }
    }

    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    /// The keys that nobody took, whatever they are called.
    pub(crate) fn into_rest(self) -> Table {
        self.table
    }

    /// Whether the key is there and was not taken yet.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Whether every key was taken.
    pub(crate) fn is_done(&self) -> bool {
        self.table.is_empty()
    }

    /// Refuses the keys that are left.
    pub(crate) fn finish(self, report: &mut Report<'_>) {
        for key in self.table.keys() {
            let known = self.known.join(", ");
            let what = format!("unknown key `{key}`; known are {known}");
            report.add(&self.place, what);
        }
    }

    pub(crate) fn take(&mut self, key: &'static str) -> Option<Value> {
        self.known.push(key);
        self.table.remove(key)
    }

    fn refuse<T>(
        &self,
        key: &str,
        found: &Value,
        expected: &str,
        report: &mut Report<'_>,
    ) -> Option<T> {
        let found = found.type_str();
        let what = format!("`{key}` is of type {found}; expected {expected}");
        report.add(&self.place, what);
        None
    }

    pub(crate) fn text(&mut self, key: &'static str, report: &mut Report<'_>) -> Option<String> {
        match self.take(key)? {
            Value::String(text) if !text.is_empty() => Some(text),
            Value::String(_) => {
                let what = format!("`{key}` is empty; expected a text that is not empty");
                report.add(&self.place, what);
                None
            }
            other => self.refuse(key, &other, "a text that is not empty", report),
        }
    }

    pub(crate) fn required(&mut self, key: &'static str, report: &mut Report<'_>) -> String {
        if !self.has(key) {
            report.add(&self.place, format!("`{key}` is missing"));
        }
        self.text(key, report).unwrap_or_default()
    }

    /// A list of texts; absent is empty.
    pub(crate) fn texts(&mut self, key: &'static str, report: &mut Report<'_>) -> Vec<String> {
        let Some(value) = self.take(key) else {
            return Vec::new();
        };
        let texts = as_texts(&value);
        if texts.is_none() {
            self.refuse::<()>(key, &value, "a list of texts", report);
        }
        texts.unwrap_or_default()
    }

    pub(crate) fn flag(
        &mut self,
        key: &'static str,
        default: bool,
        report: &mut Report<'_>,
    ) -> bool {
        match self.take(key) {
            None => default,
            Some(Value::Boolean(flag)) => flag,
            Some(other) => {
                self.refuse::<()>(key, &other, "true or false", report);
                default
            }
        }
    }

    pub(crate) fn integer(&mut self, key: &'static str, report: &mut Report<'_>) -> Option<i64> {
        match self.take(key)? {
            Value::Integer(n) => Some(n),
            other => self.refuse(key, &other, "a whole number", report),
        }
    }

    pub(crate) fn date(&mut self, key: &'static str, report: &mut Report<'_>) -> Option<Date> {
        let value = self.take(key)?;
        let date = as_date(&value);
        if date.is_none() {
            return self.refuse(key, &value, "a date such as 2026-11-15, unquoted", report);
        }
        date
    }

    pub(crate) fn money(&mut self, key: &'static str, report: &mut Report<'_>) -> Option<Rate> {
        let value = self.take(key)?;
        self.as_money(key, value, report)
    }

    fn as_money(&self, key: &str, value: Value, report: &mut Report<'_>) -> Option<Rate> {
        let text = match value {
            Value::String(text) => text,
            number @ (Value::Integer(_) | Value::Float(_)) => {
                let expected = format!("a quoted decimal: write \"{number}\"");
                return self.refuse(key, &number, &expected, report);
            }
            other => return self.refuse(key, &other, "a quoted decimal", report),
        };
        match Rate::parse(&text) {
            Ok(rate) => Some(rate),
            Err(bad) => {
                report.add(&self.place, format!("`{key}` = \"{text}\": {bad}"));
                None
            }
        }
    }

    /// All keys that are left and that `is_rate` knows, with their money; `names` are all such
    /// keys, told where a key is unknown.
    pub(crate) fn rates<K>(
        &mut self,
        names: &[&'static str],
        is_rate: impl Fn(&str) -> Option<K>,
        report: &mut Report<'_>,
    ) -> Vec<(K, Rate)> {
        self.known.extend(names);
        let mut rates = Vec::new();
        for (name, value) in std::mem::take(&mut self.table) {
            let Some(key) = is_rate(&name) else {
                self.table.insert(name, value);
                continue;
            };
            rates.extend(self.as_money(&name, value, report).map(|rate| (key, rate)));
        }
        rates
    }

    pub(crate) fn zone(&mut self, key: &'static str, report: &mut Report<'_>) -> TimeZone {
        let Some(name) = self.text(key, report) else {
            return TimeZone::UTC;
        };
        TimeZone::get(&name).unwrap_or_else(|_| {
            let what = format!("`{key}`: unknown time zone \"{name}\"; expected an IANA name");
            report.add(&self.place, what);
            TimeZone::UTC
        })
    }

    pub(crate) fn table(&mut self, key: &'static str, report: &mut Report<'_>) -> Table {
        match self.take(key) {
            None => Table::new(),
            Some(Value::Table(table)) => table,
            Some(other) => {
                self.refuse::<()>(key, &other, "a table", report);
                Table::new()
            }
        }
    }

    pub(crate) fn tables(&mut self, key: &'static str, report: &mut Report<'_>) -> Vec<Table> {
        let Some(value) = self.take(key) else {
            return Vec::new();
        };
        let mut tables = Vec::new();
        let mut is_list = false;
        if let Value::Array(items) = value {
            is_list = true;
            for item in items {
                match item {
                    Value::Table(table) => tables.push(table),
                    _ => is_list = false,
                }
            }
        }
        if !is_list {
            report.add(&self.place, format!("`{key}` must be a list of tables"));
        }
        tables
    }
}

/// A text, or a list of texts.
pub(crate) fn as_texts(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(text) => Some(vec![text.clone()]),
        Value::Array(items) => items
            .iter()
            .map(|item| item.as_str().map(str::to_owned))
            .collect(),
        _ => None,
    }
}

/// A date without a time.
pub(crate) fn as_date(value: &Value) -> Option<Date> {
    let Value::Datetime(datetime) = value else {
        return None;
    };
    if datetime.time.is_some() {
        return None;
    }
    let date = datetime.date?;
    let month = i8::try_from(date.month).ok()?;
    let day = i8::try_from(date.day).ok()?;
    Date::new(i16::try_from(date.year).ok()?, month, day).ok()
}
