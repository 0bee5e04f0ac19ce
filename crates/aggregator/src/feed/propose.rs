//! What a published list says otherwise than our tables, as changes to their files.
//!
//! A model that we lack gets rows without a beginning: its calls of the past are unpriced, and stay
//! so for nobody's good. A price that differs ends our row today and begins another; rows that have
//! ended are never touched. What cannot be placed by these rules is left to people.

use std::collections::BTreeMap;

use jiff::civil::Date;
use tollmesh_pricing::{Book, Model, Rate, Row, SourceFile};
use tollmesh_usage::Bucket;
use tollmesh_wire::Timestamp;

use super::patch::{self, Edit};
use super::{Aside, Feed, Key, Listed};

/// What a list proposes.
#[derive(Debug, Default)]
pub struct Proposal {
    /// The files that change, by name: the diff, and the whole text after it.
    pub files: BTreeMap<String, (String, String)>,
    /// Models that we lacked.
    pub n_new: usize,
    /// Models whose price differs.
    pub n_changed: usize,
    /// What is left out.
    pub aside: Aside,
}

/// What is proposed, and from where.
struct Reviewer<'a> {
    files: &'a [SourceFile],
    book: Book,
    today: Date,
    today_ms: i64,
    url: &'a str,
}

/// One model's changes to a file.
struct Change {
    model: String,
    is_new: bool,
    edits: Vec<Edit>,
}

/// The day of that instant, UTC.
pub fn day(at: Timestamp) -> Date {
    let at = jiff::Timestamp::from_millisecond(at.as_unix_ms()).unwrap_or_default();
    at.to_zoned(jiff::tz::TimeZone::UTC).date()
}

/// Compares a list with these files, for one provider or all; changes hold from `now`'s day on.
pub fn propose(
    feed: Feed,
    files: &[SourceFile],
    provider: Option<&str>,
    url: &str,
    now: Timestamp,
) -> Result<Proposal, Vec<tollmesh_pricing::Problem>> {
    let today = day(now);
    let reviewer = Reviewer {
        files,
        book: Book::load(files)?,
        today,
        today_ms: now.as_unix_ms(),
        url,
    };
    let mut proposal = Proposal {
        aside: feed.aside,
        ..Proposal::default()
    };
    let is_wanted = |name: &str| provider.is_none_or(|wanted| wanted == name);
    let mut by_file: BTreeMap<usize, Vec<Change>> = BTreeMap::new();
    for listed in feed.models.iter().filter(|l| is_wanted(&l.provider)) {
        let place = files.iter().position(|file| is_of(file, &listed.provider));
        let Some(place) = place else {
            proposal.aside.provider(&listed.provider);
            continue;
        };
        let taken = by_file.entry(place).or_default();
        let is_double = taken
            .iter()
            .any(|c| c.model.eq_ignore_ascii_case(&listed.model));
        if !is_double && let Some(change) = reviewer.change(listed, place, &mut proposal.aside) {
            let same = taken.iter().find(|c| !c.is_new && c.model == change.model);
            match same {
                None => taken.push(change),
                Some(same) if same.edits == change.edits => {}
                Some(_) => {
                    let why = format!("another name of {} has other prices there", change.model);
                    let aside = &mut proposal.aside;
                    aside.by_hand(&listed.provider, &listed.model, &why);
                }
            }
        }
    }
    for (place, changes) in by_file {
        reviewer.settle(place, changes, &mut proposal);
    }
    Ok(proposal)
}

/// Whether the file is that provider's.
fn is_of(file: &SourceFile, provider: &str) -> bool {
    let line = file.text.lines().find(|line| line.starts_with("provider"));
    let value = line.and_then(|line| line.split('"').nth(1));
    value == Some(provider)
}

impl Reviewer<'_> {
    /// What this model changes in its provider's file, if anything.
    fn change(&self, listed: &Listed, place: usize, aside: &mut Aside) -> Option<Change> {
        let (provider, name) = (&*listed.provider, &*listed.model);
        if listed.rows.is_empty() {
            return None;
        }
        let file = &self.files[place];
        let Some(model) = self.book.model(provider, name) else {
            let edit = Edit {
                at: file.text.lines().count(),
                removed: 0,
                added: self.block(listed, &file.text, aside),
            };
            return (edit.added.len() > BLOCK_FRAME).then(|| Change {
                model: name.to_owned(),
                is_new: true,
                edits: vec![edit],
            });
        };
        let mut edits = Vec::new();
        for (key, rates) in &listed.rows {
            let Some(row) = self.row_of(model, *key) else {
                let why = format!("our table has no row for {}", shown(*key));
                aside.by_hand(provider, name, &why);
                continue;
            };
            if rates
                .iter()
                .all(|(bucket, rate)| charges(row, Bucket::ALL[*bucket], *rate))
            {
                continue;
            }
            match self.successor(file, model, row, *key, rates) {
                Ok(edit) => edits.push(edit),
                Err(why) => aside.by_hand(provider, name, &why),
            }
        }
        edits.sort_by_key(|edit| edit.at);
        edits.dedup_by_key(|edit| edit.at);
        (!edits.is_empty()).then(|| Change {
            model: model.id.clone(),
            is_new: false,
            edits,
        })
    }

    /// Our row for such calls today.
    fn row_of<'m>(&self, model: &'m Model, (tier, above): Key) -> Option<&'m Row> {
        let holds = |row: &&Row| {
            row.tier == tier
                // Lists know "above" only; xAI's long context begins with the number itself.
                && above.map_or(row.input_min == 0, |n| [n, n + 1].contains(&row.input_min))
                && row.from_ms <= self.today_ms
                && self.today_ms < row.until_ms
                && row.at.is_none()
                && row.regions.is_empty()
                && !row.either
        };
        model.rows.iter().find(holds)
    }

    /// Ends that row today, and begins one at these rates.
    fn successor(
        &self,
        file: &SourceFile,
        model: &Model,
        row: &Row,
        key: Key,
        rates: &BTreeMap<usize, Rate>,
    ) -> Result<Edit, String> {
        let found = || format!("our row for {} stands in {}", shown(key), row.id);
        let lines: Vec<&str> = file.text.lines().collect();
        let block = block_of(&lines, &model.id).ok_or_else(found)?;
        let mut fitting = block.filter_map(|at| {
            let fields = inline(lines.get(at)?)?;
            is_row(&fields, row).then_some((at, fields))
        });
        let (at, fields) = match (fitting.next(), fitting.next()) {
            (Some(only), None) => only,
            _ => return Err(found()),
        };
        let until = format!("until = {}, ", self.today);
        let line = lines.get(at).copied().unwrap_or_default();
        let ended = match line.split_once("from = ").and_then(|(head, tail)| {
            let (date, rest) = tail.split_once(", ")?;
            (date != self.today.to_string())
                .then(|| format!("{head}from = {date}, {until}{}", rest.trim_start()))
        }) {
            Some(ended) => ended,
            None if line.contains("from = ") => return Err("our row begins today".to_owned()),
            None => line.replacen("{ ", &format!("{{ {until}"), 1),
        };
        Ok(Edit {
            at,
            removed: 1,
            added: vec![ended, self.line(key, &fields, row, rates)],
        })
    }

    /// The row that begins today: what the old one says, with the rates that the list has.
    fn line(
        &self,
        (tier, _): Key,
        fields: &toml::Table,
        row: &Row,
        rates: &BTreeMap<usize, Rate>,
    ) -> String {
        let mut parts = vec![format!("from = {}", self.today)];
        if tier != "standard" {
            parts.push(format!("tier = {tier:?}"));
        }
        parts.extend(fields.get("ctx").map(|ctx| format!("ctx = {ctx}")));
        for (n, bucket) in Bucket::ALL.into_iter().enumerate() {
            let rate = rates.get(&n).copied().or(row.rate(bucket));
            parts.extend(rate.map(|rate| rate_field(bucket, rate)));
        }
        let units = row.units.iter();
        parts.extend(units.map(|(unit, rate)| format!("{} = \"{rate}\"", unit.name())));
        self.closed(&parts)
    }

    fn closed(&self, parts: &[String]) -> String {
        let (url, today) = (self.url, self.today);
        format!(
            "  {{ {}, src = {url:?}, checked = {today}, confidence = \"single-source\" }},",
            parts.join(", ")
        )
    }

    /// The block of a model that we lack; without rows where the file knows none of its tiers.
    fn block(&self, listed: &Listed, text: &str, aside: &mut Aside) -> Vec<String> {
        let id = toml::Value::from(&*listed.model);
        let mut lines = vec![
            String::new(),
            "[[model]]".to_owned(),
            format!("id    = {id}"),
            format!("match = [{id}]"),
            "rate  = [".to_owned(),
        ];
        let tiers = text.parse::<toml::Table>().ok();
        let tiers = tiers
            .as_ref()
            .and_then(|file| file.get("tiers")?.as_table());
        for ((tier, above), rates) in &listed.rows {
            let is_known = *tier == "standard" || tiers.is_some_and(|t| t.contains_key(*tier));
            if !is_known {
                let why = format!("our file has no tier {tier:?}");
                aside.by_hand(&listed.provider, &listed.model, &why);
                continue;
            }
            let mut parts = Vec::new();
            if *tier != "standard" {
                parts.push(format!("tier = {tier:?}"));
            }
            parts.extend(ctx(listed, tier, *above));
            let rates = rates.iter();
            parts.extend(rates.map(|(n, rate)| rate_field(Bucket::ALL[*n], *rate)));
            lines.push(self.closed(&parts));
        }
        lines.push("]".to_owned());
        lines
    }

    /// Puts the changes of a file together. One that makes the tables invalid is left to people.
    fn settle(&self, place: usize, changes: Vec<Change>, proposal: &mut Proposal) {
        let file = &self.files[place];
        let mut taken: Vec<Change> = Vec::new();
        self.take(place, changes, &mut taken, &mut proposal.aside);
        if taken.is_empty() {
            return;
        }
        let edits = edits(&taken.iter().collect::<Vec<_>>());
        proposal.n_new += taken.iter().filter(|change| change.is_new).count();
        proposal.n_changed += taken.iter().filter(|change| !change.is_new).count();
        let diff = patch::unified(&format!("pricing/{}", file.name), &file.text, &edits);
        let text = patch::apply(&file.text, &edits);
        proposal.files.insert(file.name.clone(), (diff, text));
    }

    /// Takes all that the tables still load with; halves, until those that do harm are alone.
    fn take(
        &self,
        place: usize,
        mut changes: Vec<Change>,
        taken: &mut Vec<Change>,
        aside: &mut Aside,
    ) {
        if changes.is_empty() {
            return;
        }
        let tried: Vec<&Change> = taken.iter().chain(&changes).collect();
        let Some(why) = self.problem(place, &tried) else {
            taken.append(&mut changes);
            return;
        };
        if let [one] = &changes[..] {
            aside.by_hand(&self.files[place].name, &one.model, &why);
            return;
        }
        let rest = changes.split_off(changes.len() / 2);
        self.take(place, changes, taken, aside);
        self.take(place, rest, taken, aside);
    }

    /// What is wrong with the tables after these changes to that file.
    fn problem(&self, place: usize, changes: &[&Change]) -> Option<String> {
        let mut files = self.files.to_vec();
        files[place].text = patch::apply(&files[place].text, &edits(changes));
        let problems = Book::load(&files).err()?;
        problems.first().map(ToString::to_string)
    }
}

/// Lines of a block that are no rows.
const BLOCK_FRAME: usize = 6;

/// All edits in the order of their lines; what is added at the end stays in the models' order.
fn edits(changes: &[&Change]) -> Vec<Edit> {
    let mut edits: Vec<Edit> = changes.iter().flat_map(|c| c.edits.clone()).collect();
    edits.sort_by_key(|edit| edit.at);
    edits
}

fn shown((tier, above): Key) -> String {
    match above {
        Some(above) => format!("{tier} above {above}"),
        None => tier.to_owned(),
    }
}

fn rate_field(bucket: Bucket, rate: Rate) -> String {
    format!("{} = \"{rate}\"", bucket.name())
}

/// Whether the row charges that rate, be it through the class that stands above.
fn charges(row: &Row, bucket: Bucket, rate: Rate) -> bool {
    let mut class = Some(bucket);
    while let Some(bucket) = class {
        if let Some(own) = row.rate(bucket) {
            return own == rate;
        }
        class = match bucket {
            Bucket::CacheWrite1h => Some(Bucket::CacheWrite),
            Bucket::CacheReadAudio => Some(Bucket::CacheRead),
            Bucket::CacheRead | Bucket::CacheWrite => Some(Bucket::Input),
            Bucket::AudioInput | Bucket::ImageInput => Some(Bucket::Input),
            Bucket::Reasoning | Bucket::AudioOutput | Bucket::ImageOutput => Some(Bucket::Output),
            Bucket::Input | Bucket::Output => None,
        };
    }
    false
}

/// The context range of a row of the list, in a file's words.
fn ctx(listed: &Listed, tier: &str, above: Option<u64>) -> Option<String> {
    let above_of = |(of, above): &Key| (*of == tier).then_some(*above).flatten();
    let next = listed.rows.keys().filter_map(above_of);
    let next = next.filter(|n| Some(*n) > above).min();
    let parts = [
        above.map(|n| format!(">{n}")),
        next.map(|n| format!("<={n}")),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    (!parts.is_empty()).then(|| format!("ctx = \"{}\"", parts.join(" ")))
}

/// The lines of the model's block.
fn block_of(lines: &[&str], id: &str) -> Option<std::ops::Range<usize>> {
    let quoted = toml::Value::from(id).to_string();
    let is_id = |line: &&str| {
        let pair = line.split_once('=');
        pair.is_some_and(|(key, value)| key.trim() == "id" && value.trim() == quoted)
    };
    let begin = lines.iter().position(is_id)?;
    let is_model = lines.get(begin.checked_sub(1)?)?.trim() == "[[model]]";
    let rest = lines.get(begin..)?;
    let length = rest.iter().position(|line| line.starts_with('['));
    is_model.then(|| begin..begin + length.unwrap_or(rest.len()))
}

/// The fields of a row that stands on a line of its own.
fn inline(line: &str) -> Option<toml::Table> {
    let list = format!("row = [\n{line}\n]").parse::<toml::Table>().ok()?;
    match list.get("row")?.as_array()?.as_slice() {
        [toml::Value::Table(row)] => Some(row.clone()),
        _ => None,
    }
}

/// Whether those are the fields of that row, which has no end yet.
fn is_row(fields: &toml::Table, row: &Row) -> bool {
    let text = |name: &str| fields.get(name).and_then(toml::Value::as_str);
    let is_plain = ["until", "at", "region"]
        .iter()
        .all(|key| !fields.contains_key(*key));
    let has_rates = Bucket::ALL.into_iter().all(|bucket| {
        let written = text(bucket.name()).and_then(|text| Rate::parse(text).ok());
        written == row.rate(bucket)
    });
    is_plain && text("tier").unwrap_or("standard") == row.tier && has_rates
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::Kind;

    const TABLE: &str = r#"schema   = 1
provider = "openai"
currency = "USD"
[tiers]
standard = ["default"]
batch = []
[source]
list = "https://openai.example/prices"

[[model]]
id    = "gpt-a"
match = ["gpt-a{snap}"]
rate  = [
  { until = 2026-01-01, input = "4", output = "8", src = "list", checked = 2026-11-09 },
  { from = 2026-01-01, input = "2", cache_read = "0.20", output = "8", src = "list", checked = 2026-11-09 },
  { tier = "batch", input = "1", output = "4", src = "list", checked = 2026-11-09 },
]

[[model]]
id    = "gpt-b"
rate  = [
  { ctx = "<=200000", input = "1", output = "5", src = "list", checked = 2026-11-09 },
  { ctx = ">200000", input = "2", output = "7.50", src = "list", checked = 2026-11-09 },
]
"#;

    fn proposed(kind: Kind, list: &str) -> Proposal {
        let file = SourceFile {
            name: "openai.toml".into(),
            text: TABLE.into(),
        };
        let now = Timestamp::parse("2026-11-22T07:00:00Z").unwrap();
        let feed = kind.read(list, now).unwrap();
        let proposal = propose(feed, &[file], None, "https://list.example/x.json", now).unwrap();
        for (_, text) in proposal.files.values() {
            let file = SourceFile {
                name: "openai.toml".into(),
                text: text.clone(),
            };
            assert!(Book::load(&[file]).is_ok());
        }
        proposal
    }

    fn told(proposal: &Proposal) -> String {
        let mut text = String::new();
        for (diff, _) in proposal.files.values() {
            text.push_str(diff);
        }
        let Aside {
            providers,
            keys,
            by_hand,
        } = &proposal.aside;
        text.push_str(&format!("{providers:?}\n{keys:?}\n{by_hand:#?}"));
        text
    }

    #[test]
    fn litellm() {
        let list = r#"{
            "sample_spec": { "litellm_provider": "one of many", "input_cost_per_token": 0.0 },
            "gpt-a": { "litellm_provider": "openai", "mode": "chat", "max_tokens": 10,
                "input_cost_per_token": 1.5e-06, "output_cost_per_token": 8e-06,
                "cache_read_input_token_cost": 2e-07, "input_cost_per_token_batches": 1e-06,
                "output_cost_per_token_flex": 4e-06, "supports_vision": true },
            "gpt-b": { "litellm_provider": "openai",
                "input_cost_per_token": 1e-06, "output_cost_per_token": 5e-06,
                "output_cost_per_reasoning_token": 5e-06,
                "output_cost_per_token_above_200k_tokens": 9e-06 },
            "gpt-new": { "litellm_provider": "openai",
                "input_cost_per_token": 1.25e-07, "output_cost_per_token": 0.0,
                "input_cost_per_token_above_272k_tokens": 2.5e-07,
                "input_cost_per_token_batches": 6.25e-08, "search_context_cost_per_query": {} },
            "gpt-odd": { "litellm_provider": "openai", "input_cost_per_token": 1.9999999999999998e-06 },
            "gpt-free": { "litellm_provider": "openai", "input_cost_per_token": 0 },
            "other": { "litellm_provider": "nobody", "input_cost_per_token": 1e-06 }
        }"#;
        let proposal = proposed(Kind::Litellm, list);
        assert_eq!((proposal.n_new, proposal.n_changed), (1, 2));
        insta::assert_snapshot!(told(&proposal));
    }

    #[test]
    fn genai_prices() {
        let list = r#"[
            { "id": "openai", "name": "OpenAI", "api_pattern": "x", "models": [
                { "id": "gpt-a", "match": { "equals": "gpt-a" }, "prices": [
                    { "prices": { "input_mtok": 4, "output_mtok": 8 } },
                    { "constraint": { "start_date": "2026-01-01" },
                      "prices": { "input_mtok": 2.0, "cache_read_mtok": 0.25, "output_mtok": 8 } },
                    { "constraint": { "start_date": "2999-01-01" }, "prices": { "input_mtok": 9 } } ] },
                { "id": "gpt-b", "prices": { "input_mtok": { "base": 1, "tiers": [
                    { "start": 200000, "price": 2 } ] }, "output_mtok": { "base": 5, "tiers": [
                    { "start": 200000, "price": 7.5 } ] } } },
                { "id": "gpt-hours", "prices": [ { "prices": { "input_mtok": 1 } },
                    { "constraint": { "start_time": "00:30:00Z", "end_time": "16:30:00Z" },
                      "prices": { "input_mtok": 2 } } ] },
                { "id": "gpt-new", "prices": { "input_mtok": 0.1, "requests_kcount": 5 } } ] },
            { "id": "x-ai", "models": [ { "id": "grok", "prices": { "input_mtok": 1 } } ] }
        ]"#;
        let proposal = proposed(Kind::GenaiPrices, list);
        assert_eq!((proposal.n_new, proposal.n_changed), (1, 1));
        insta::assert_snapshot!(told(&proposal));
    }

    #[test]
    fn names_of_one_model_change_it_once() {
        let entry = |name: &str, input: &str| {
            format!(
                r#""{name}": {{ "litellm_provider": "openai", "output_cost_per_token": 8e-06,
                "cache_read_input_token_cost": 2e-07, "input_cost_per_token": {input} }}"#
            )
        };
        let names = [
            entry("gpt-a", "3e-06"),
            entry("gpt-a-2026-02-03", "3e-06"),
            entry("gpt-a-2026-04-05", "5e-06"),
        ];
        let proposal = proposed(Kind::Litellm, &format!("{{ {} }}", names.join(", ")));
        assert_eq!((proposal.n_new, proposal.n_changed), (0, 1));
        let told: Vec<&String> = proposal.aside.by_hand.iter().collect();
        let other = "openai gpt-a-2026-04-05: another name of gpt-a has other prices there";
        assert_eq!(told, [other]);
    }

    #[test]
    fn what_does_harm_is_left_out_alone() {
        // Two models of the list claim the names of one glob that is new with them.
        let entry = |name: &str| {
            format!(
                r#""{name}": {{ "litellm_provider": "openai", "input_cost_per_token": 3e-06 }}"#
            )
        };
        let names = ["a1", "gpt-x*", "gpt-x1*", "z1", "z2"].map(entry);
        let proposal = proposed(Kind::Litellm, &format!("{{ {} }}", names.join(", ")));
        assert_eq!((proposal.n_new, proposal.n_changed), (4, 0));
        let told: Vec<&String> = proposal.aside.by_hand.iter().collect();
        assert_eq!(told.len(), 1);
        assert!(told[0].starts_with("openai.toml gpt-x1*: "), "{told:?}");
    }

    #[test]
    fn what_is_no_model_is_told() {
        let list = r#"{ "last_updated": "2026-07-24",
            "low/1024-x-1024/gpt-image": { "litellm_provider": "openai", "input_cost_per_token": 1 },
            "gpt-c": { "litellm_provider": "openai", "input_cost_per_token": 1e-06 } }"#;
        let proposal = proposed(Kind::Litellm, list);
        assert_eq!((proposal.n_new, proposal.aside.by_hand.len()), (1, 2));
    }

    #[test]
    fn what_agrees_proposes_nothing() {
        let list = r#"{ "gpt-a-2026-02-03": { "litellm_provider": "openai",
            "input_cost_per_token": 0.000002, "output_cost_per_token": 0.000008,
            "output_cost_per_reasoning_token": 8E-6 } }"#;
        let proposal = proposed(Kind::Litellm, list);
        assert!(proposal.files.is_empty() && proposal.aside.by_hand.is_empty());
    }
}
